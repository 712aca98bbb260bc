"""Someone combines shipped plugins with two of their own, the last of which sees what the others left."""

import sys

import nfstream
from nfstream.plugins import SPLT, FlowSlicer


class Bursts(nfstream.NFPlugin):
    def on_init(self, packet, flow):
        flow.udps.bursts = 1

    def on_update(self, packet, flow):
        if packet.delta_time > self.pause_ms:
            flow.udps.bursts += 1


class Summary(nfstream.NFPlugin):
    def on_update(self, packet, flow):
        flow.udps.last = (flow.udps.bursts, flow.udps.splt_ps[0])

    def on_expire(self, flow):
        forward = [size for way, size in zip(flow.udps.splt_direction, flow.udps.splt_ps) if way == 0]
        flow.udps.summary = {"forward": sum(forward), "bursts": flow.udps.bursts}


plugins = [SPLT(sequence_length=6, accounting_mode=1), Bursts(pause_ms=500), Summary(), FlowSlicer(limit=20)]
streamer = nfstream.NFStreamer(source=sys.argv[1], udps=plugins, n_dissections=0, n_meters=1)
for flow in streamer:
    print(flow.expiration_id, flow.bidirectional_packets, vars(flow.udps))
