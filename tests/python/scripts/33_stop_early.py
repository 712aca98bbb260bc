"""Someone takes a sample of a large capture: the first flows only, or until something is found."""

import sys

from nfstream import NFStreamer

streamer = NFStreamer(source=sys.argv[1], max_nflows=20, n_dissections=0, n_meters=1)
sample = streamer.to_pandas()
print(len(sample), streamer.idle_timeout, streamer.active_timeout, streamer.n_dissections)
print(sample.to_csv())
NFStreamer(sys.argv[1], max_nflows=1, n_dissections=0, n_meters=1).to_csv("one.csv")
found = []
for flow in NFStreamer(sys.argv[1], idle_timeout=5, n_dissections=0, n_meters=1):
    if flow.bidirectional_bytes > 10_000:
        found.append((flow.id, flow.src_ip, flow.bidirectional_bytes))
        if len(found) == 2:
            break
print(found)
