"""What does a DHCP client say of itself?"""

from enum import Enum

from .._engine import dhcp_changes
from ..plugin import NFPlugin


class MsgType(Enum):
    """Types of messages (RFC 2132, section 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NACK = 6
    RELEASE = 7
    INFORM = 8


class DHCP(NFPlugin):
    """Options of messages in flows to port 67.

    A flow ends with ACK, NACK, INFORM and DECLINE, and with each message from 0.0.0.0.
    """

    def on_init(self, packet, flow):
        udps = flow.udps
        udps.dhcp_12 = None
        udps.dhcp_50 = None
        udps.dhcp_55 = None
        udps.dhcp_57 = None
        udps.dhcp_60 = None
        udps.dhcp_77 = None
        udps.dhcp_options = []
        udps.dhcp_addr = None
        udps.dhcp_msg_type = None
        udps.dhcp_oui = None
        self.on_update(packet, flow)

    def on_update(self, packet, flow):
        if flow.dst_port != 67:
            return
        changes = dhcp_changes(packet.ip_packet)
        if changes is None:
            return
        values, kind, ends = changes
        for name, value in values:
            setattr(flow.udps, name, value)
        if flow.udps.dhcp_msg_type is None:
            flow.udps.dhcp_msg_type = 0 if kind is None else MsgType(kind)
        if ends or flow.src_ip == "0.0.0.0":
            flow.expiration_id = -1
