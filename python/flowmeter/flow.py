"""What a flow and a packet are."""

from typing import TYPE_CHECKING, Any, NamedTuple

from ._engine import NFlow

_CORE = (
    "id expiration_id src_ip src_mac src_oui src_port dst_ip dst_mac dst_oui dst_port protocol "
    "ip_version vlan_id tunnel_id"
).split()
_DIRECTIONS = ("bidirectional", "src2dst", "dst2src")
_FLAGS = "syn cwr ece urg ack psh rst fin".split()

#: The attributes that a flow can have, in order.
SLOTS = (
    _CORE
    + [
        f"{d}_{name}"
        for d in _DIRECTIONS
        for name in ("first_seen_ms", "last_seen_ms", "duration_ms", "packets", "bytes")
    ]
    + [f"{d}_{f}_ps" for d in _DIRECTIONS for f in ("min", "mean", "stddev", "max")]
    + [f"{d}_{f}_piat_ms" for d in _DIRECTIONS for f in ("min", "mean", "stddev", "max")]
    + [f"{d}_{f}_packets" for d in _DIRECTIONS for f in _FLAGS]
    + "splt_direction splt_ps splt_piat_ms".split()
    + (
        "application_name application_category_name application_is_guessed application_confidence "
        "requested_server_name client_fingerprint server_fingerprint user_agent content_type"
    ).split()
    + "_C udps system_process_pid system_process_name system_browser_tab".split()
)

# Exporters iterate over it, as over NFStream's.
NFlow.__slots__ = tuple(SLOTS)


def _dir(flow):
    """What a notebook completes: the class has no attribute for what its flows have."""
    return [*object.__dir__(flow), *(name for name in SLOTS if hasattr(flow, name))]


NFlow.__dir__ = _dir

class NFPacket(NamedTuple):
    """A packet: what ``on_init`` and ``on_update`` get."""

    time: int  #: ms since the epoch
    delta_time: int  #: ms since the flow's packet before; 0 for its first
    direction: int  #: 0 from the initiator, 1 from the responder
    raw_size: int  #: bytes of the frame
    ip_size: int  #: bytes of the IP packet
    transport_size: int  #: bytes behind the IP header
    payload_size: int  #: bytes of the payload
    src_ip: str  #: of this packet, as are the others
    src_mac: str
    src_oui: str
    dst_ip: str
    dst_mac: str
    dst_oui: str
    src_port: int
    dst_port: int
    protocol: int  #: of IP
    vlan_id: int  #: 0 for none
    ip_version: int  #: 4 or 6
    ip_packet: bytes  #: from the IP header to the end of the captured frame, padding included
    syn: int  #: 0 or 1, as are the other flags
    cwr: int
    ece: int
    urg: int
    ack: int
    psh: int
    rst: int
    fin: int
    tunnel_id: int  #: what tunnel was decoded; 0 for none


#: As NFStream names it.
nf_packet = NFPacket


class UDPS:
    """What plugins keep of a flow: any attributes."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...
