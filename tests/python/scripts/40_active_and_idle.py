"""Someone rebuilds another meter's features: active and idle periods, bulks, rates, in both directions."""

import statistics
import sys

from nfstream import NFPlugin, NFStreamer


class Periods(NFPlugin):
    def on_init(self, packet, flow):
        flow.udps.active, flow.udps.idle = [0], []
        flow.udps.headers = [0, 0]
        flow.udps.bulk = 0
        self.count(packet, flow)

    def on_update(self, packet, flow):
        if packet.delta_time > self.threshold_ms:
            flow.udps.idle.append(packet.delta_time)
            flow.udps.active.append(0)
        else:
            flow.udps.active[-1] += packet.delta_time
        self.count(packet, flow)

    def count(self, packet, flow):
        flow.udps.headers[packet.direction] += packet.ip_size - packet.payload_size
        flow.udps.bulk = flow.udps.bulk + packet.payload_size if packet.direction and packet.payload_size else 0

    def on_expire(self, flow):
        for name in ("active", "idle"):
            values = getattr(flow.udps, name) or [0]
            setattr(flow.udps, f"{name}_mean", statistics.fmean(values))
            setattr(flow.udps, f"{name}_max", max(values))
        seconds = flow.bidirectional_duration_ms / 1000
        flow.udps.rate = flow.bidirectional_bytes / seconds if seconds else float("nan")


streamer = NFStreamer(source=sys.argv[1], udps=Periods(threshold_ms=1_000), idle_timeout=60, n_dissections=0, n_meters=1)
print(streamer.to_pandas().filter(like="udps.").to_csv())
