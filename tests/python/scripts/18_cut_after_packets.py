"""An early classifier looks at the first eight packets, and ends the flow there."""

import sys

from nfstream import NFPlugin, NFStreamer


class Early(NFPlugin):
    def on_init(self, packet, flow):
        flow.udps.sizes = [packet.raw_size]
        if self.limit == 1:
            flow.expiration_id = -1

    def on_update(self, packet, flow):
        flow.udps.sizes.append(packet.raw_size)
        if flow.bidirectional_packets == self.limit:
            flow.expiration_id = -1


for limit in (8, 1):
    streamer = NFStreamer(sys.argv[1], udps=Early(limit=limit), n_dissections=0, splt_analysis=8, n_meters=1)
    for flow in streamer:
        assert len(flow.udps.sizes) == flow.bidirectional_packets <= limit
        print(flow.id, flow.expiration_id, flow.src_port, flow.dst_port, flow.bidirectional_first_seen_ms,
              flow.udps.sizes, flow.splt_ps)  # fmt: skip
