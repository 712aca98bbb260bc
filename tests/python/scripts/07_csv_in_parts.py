"""A researcher with little memory writes files of 25 flows, and puts them together afterwards."""

import glob
import sys

import pandas as pd

from nfstream import NFStreamer

count = NFStreamer(source=sys.argv[1], statistical_analysis=True, n_meters=1).to_csv(
    path="part.csv", flows_per_file=25
)
parts = sorted(glob.glob("part.*.csv"), key=lambda name: int(name.split(".")[1]))
frames = [pd.read_csv(part) for part in parts]
print(count, parts, [len(frame) for frame in frames])
whole = pd.concat(frames, ignore_index=True)
assert list(whole.id) == list(range(count))
print(whole[["bidirectional_duration_ms", "bidirectional_stddev_ps"]].sum())
