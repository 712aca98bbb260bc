"""A defender trains a model on one pass, and has a plugin ask it at the end of each flow of the next."""

import sys

import numpy as np
from nfstream import NFPlugin, NFStreamer
from sklearn.ensemble import IsolationForest

FEATURES = ["bidirectional_packets", "src2dst_bytes", "dst2src_bytes", "bidirectional_duration_ms", "dst_port",
            "bidirectional_max_ps", "bidirectional_syn_packets"]  # fmt: skip


class Predictor(NFPlugin):
    def on_init(self, packet, flow):
        flow.udps.score = 0.0

    def on_expire(self, flow):
        row = np.array([[getattr(flow, name) for name in FEATURES]])
        flow.udps.score = float(self.model.decision_function(row)[0])
        flow.udps.verdict = "anomaly" if self.model.predict(row)[0] == -1 else "normal"


def streamer(**options):
    return NFStreamer(source=sys.argv[1], statistical_analysis=True, n_dissections=0, n_meters=1, **options)


model = IsolationForest(n_estimators=10, contamination=0.1, random_state=7)
model.fit(streamer().to_pandas()[FEATURES].to_numpy())
for flow in streamer(udps=Predictor(model=model)):
    print(flow.src_ip, flow.dst_port, flow.udps.verdict, flow.udps.score)
