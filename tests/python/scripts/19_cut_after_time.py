"""Someone wants windows of five seconds of each flow."""

import sys

import nfstream


class Window(nfstream.NFPlugin):
    def on_init(self, packet, flow):
        flow.udps.begin = packet.time

    def on_update(self, packet, flow):
        if packet.time - flow.udps.begin >= self.milliseconds:
            flow.expiration_id = -1


df = nfstream.NFStreamer(
    sys.argv[1], udps=Window(milliseconds=5_000), statistical_analysis=True, n_dissections=0, n_meters=1
).to_pandas()
print(df.expiration_id.value_counts().sort_index())
df.to_csv("windows.csv", index=False)
