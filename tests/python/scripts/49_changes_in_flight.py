"""Someone sets attributes of flows in the middle, also those of analyses that are off, and sees which stay."""

import sys

from nfstream import NFPlugin, NFStreamer


class Changes(NFPlugin):
    def on_init(self, packet, flow):
        flow.udps.seen = [packet.src_ip]
        flow.src_oui = "mine"
        flow.dst_port = -1
        flow.tunnel_id = 7
        flow.bidirectional_first_seen_ms -= 1_000
        flow.bidirectional_packets = 1_000

    def on_update(self, packet, flow):
        if len(flow.udps.seen) < 6:
            seen = (packet.src_ip, packet.src_oui, packet.dst_port, flow.bidirectional_packets, flow.dst_port)
            flow.udps.seen.append(seen)
        flow.src2dst_bytes = 0
        if flow.bidirectional_packets == 3:
            flow.src_ip = "192.0.2.99"

    def on_expire(self, flow):
        flow.udps.last = (flow.src2dst_bytes, flow.expiration_id, flow.src_ip)
        flow.protocol = {6: "TCP", 17: "UDP"}.get(flow.protocol, "other")
        flow.bidirectional_duration_ms = flow.bidirectional_duration_ms / 1_000
        flow.application_name = "web" if flow.udps.seen[0].endswith(".80") else "no web"
        flow.splt_ps = [flow.bidirectional_packets]


streamer = NFStreamer(source=sys.argv[1], udps=Changes(), n_dissections=0, n_meters=1)
streamer.to_csv("changed.csv")
for flow in streamer:
    if flow.id % 2:
        flow.system_process_name = "unknown"
    print(flow, hasattr(flow, "splt_piat_ms"))
