"""What a flow and a packet are."""

from collections import namedtuple

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

#: A packet: what ``on_init`` and ``on_update`` get. Times are in ms since the epoch, sizes in bytes.
nf_packet = namedtuple(
    "NFPacket",
    "time delta_time direction raw_size ip_size transport_size payload_size src_ip src_mac src_oui "
    "dst_ip dst_mac dst_oui src_port dst_port protocol vlan_id ip_version ip_packet "
    + " ".join(_FLAGS)
    + " tunnel_id",
)


class UDPS:
    """What plugins keep of a flow: any attributes."""
