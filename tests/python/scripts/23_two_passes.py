"""An analyst iterates twice over one streamer, then changes what it does and iterates again."""

import sys

from nfstream import NFPlugin, NFStreamer


class Acks(NFPlugin):
    def on_init(self, packet, flow):
        flow.udps.acks = packet.ack

    def on_update(self, packet, flow):
        flow.udps.acks += packet.ack


streamer = NFStreamer(source=sys.argv[1], n_dissections=0, n_meters=1)
local = {flow.src_ip for flow in streamer if flow.dst_port == 53}
print(sorted(local))
for flow in streamer:
    if flow.src_ip in local and flow.dst_port != 53:
        print(flow.id, flow.src_ip, flow.dst_ip, flow.bidirectional_bytes)
for name, value in [
    ("bpf_filter", "tcp"), ("idle_timeout", 2), ("decode_tunnels", False), ("accounting_mode", 1),
    ("udps", Acks()), ("statistical_analysis", True), ("bpf_filter", None), ("max_nflows", 30),
]:  # fmt: skip
    setattr(streamer, name, value)
    flows = list(streamer)
    print(name, len(flows), len(flows[0].keys()), sum(flow.bidirectional_bytes for flow in flows))
print(streamer.to_csv("last.csv") == len(streamer.to_pandas()))
