"""A researcher collects sizes and times of packets in arrays; on_init does as on_update does."""

import sys

import numpy as np
from nfstream import NFPlugin, NFStreamer


class Arrays(NFPlugin):
    """Arrays of the first packets."""

    def on_init(self, packet, flow):
        flow.udps.sizes = np.zeros(self.length, dtype=np.int32)
        flow.udps.gaps = np.array([], dtype=float)
        flow.udps.count = 0
        self.on_update(packet, flow)

    def on_update(self, packet, flow):
        if flow.udps.count < self.length:
            flow.udps.sizes[flow.udps.count] = packet.ip_size * (-1 if packet.direction else 1)
            flow.udps.gaps = np.append(flow.udps.gaps, packet.delta_time / 1000)
        flow.udps.count += 1

    def on_expire(self, flow):
        sizes = np.abs(flow.udps.sizes[flow.udps.sizes != 0])
        flow.udps.quartiles = np.percentile(sizes, [25, 50, 75]) if sizes.size else np.zeros(3)
        flow.udps.spread = float(flow.udps.gaps.std())


for flow in NFStreamer(source=sys.argv[1], udps=[Arrays(length=12)], n_dissections=0, n_meters=1):
    assert flow.udps.count == flow.bidirectional_packets and isinstance(flow.udps.sizes, np.ndarray)
    print(flow.id, flow.udps.sizes.tolist(), flow.udps.gaps.tolist(), flow.udps.quartiles, flow.udps.spread)
