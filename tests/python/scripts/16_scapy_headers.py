"""Someone wants what flows do not have: TTL, TCP's window and options, by scapy."""

import sys

from nfstream import NFPlugin, NFStreamer
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6


class Headers(NFPlugin):
    def on_init(self, packet, flow):
        layers = (IP if packet.ip_version == 4 else IPv6)(packet.ip_packet)
        flow.udps.hops = layers.ttl if packet.ip_version == 4 else layers.hlim
        flow.udps.windows = []
        flow.udps.sequence = layers[TCP].seq if TCP in layers else None
        self.window(layers, flow)

    def on_update(self, packet, flow):
        if flow.bidirectional_packets <= 4:
            self.window((IP if packet.ip_version == 4 else IPv6)(packet.ip_packet), flow)

    def window(self, layers, flow):
        if TCP in layers:
            flow.udps.windows.append((layers[TCP].window, str(layers[TCP].flags), len(layers)))


streamer = NFStreamer(sys.argv[1], udps=Headers(), n_dissections=0, n_meters=1)
for flow in streamer:
    print(flow.src_ip, flow.src_port, flow.udps.hops, flow.udps.sequence, flow.udps.windows)
