"""Which names does a host announce by multicast DNS?"""

from .._engine import mdns_add
from ..plugin import NFPlugin


class MDNS(NFPlugin):
    """Names in PTR records of answers in flows to port 5353, each once, at most 256."""

    def on_init(self, packet, flow):
        flow.udps.mdns_ptr = []
        self.on_update(packet, flow)

    def on_update(self, packet, flow):
        if flow.dst_port == 5353:
            mdns_add(packet.ip_packet, flow.udps.mdns_ptr)
