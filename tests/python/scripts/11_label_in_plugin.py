"""A researcher labels flows while they are metered, from a table of the attacks in a constructor of its own."""

import sys

from nfstream import NFPlugin, NFStreamer


class Label(NFPlugin):
    def __init__(self, truth, default="benign"):
        self.truth = truth
        self.default = default

    def on_init(self, packet, flow):
        flow.udps.label = self.truth.get((packet.src_ip, packet.dst_ip), self.default)
        flow.udps.is_scan = int(packet.syn and not packet.ack and packet.payload_size == 0)

    def on_update(self, packet, flow):
        if packet.direction == 1 and packet.rst:
            flow.udps.is_scan += 1


truth = {("10.0.0.66", "10.0.0.12"): "scan", ("10.0.0.14", "10.0.0.2"): "beacon"}
df = NFStreamer(source=sys.argv[1], udps=Label(truth), n_dissections=0, n_meters=1).to_pandas()
print(df["udps.label"].value_counts().sort_index(), df["udps.is_scan"].sum())
print(df.to_csv(index=False))
