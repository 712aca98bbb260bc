"""A researcher draws each flow as a picture of sizes over time, and finds the nearest class by numpy."""

import sys

import numpy as np
from nfstream import NFPlugin, NFStreamer


class Picture(NFPlugin):
    def on_init(self, packet, flow):
        flow.udps.points = [(0, packet.ip_size)]

    def on_update(self, packet, flow):
        flow.udps.points.append((packet.time - flow.bidirectional_first_seen_ms, packet.ip_size))

    def on_expire(self, flow):
        points = np.array(flow.udps.points, dtype=float)
        picture, _, _ = np.histogram2d(*points.T, bins=self.bins, range=[[0, 10_000], [0, 1_500]])
        flow.udps.picture = picture.astype(np.int64)
        del flow.udps.points


streamer = NFStreamer(source=sys.argv[1], udps=Picture(bins=8), n_dissections=0, n_meters=1)
pictures = np.stack([flow.udps.picture for flow in streamer])
centers = pictures[:: max(1, len(pictures) // 5)].astype(float)
classes = np.abs(pictures[:, None] - centers[None]).sum(axis=(2, 3)).argmin(axis=1)
np.savetxt("pictures.csv", pictures.reshape(len(pictures), -1), fmt="%d", delimiter=",")
print(classes.tolist())
