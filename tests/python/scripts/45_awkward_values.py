"""Someone leaves values of all kinds in udps, and expects them back from tables as text is read."""

import enum
import sys

import numpy as np
import pandas as pd
from nfstream import NFPlugin, NFStreamer


class Kind(enum.Enum):
    SHORT = 1
    LONG = 2


class Awkward(NFPlugin):
    def on_expire(self, flow):
        udps, packets = flow.udps, flow.bidirectional_packets
        udps.nothing = None
        udps.text = ["NA", "", 'quote " and, comma', "two\nlines", "null", "ünï"][packets % 6]
        udps.only_empty = ""
        udps.truth = packets > 2
        udps.some_truth = True if packets > 2 else None
        udps.fraction = [0.1, float("nan"), float("inf"), 1e-9][packets % 4]
        udps.large = 2**70 + packets
        udps.kind = Kind.SHORT if packets < 5 else Kind.LONG
        udps.mixed = packets if packets % 2 else f"n{packets}"
        udps.collection = [(1, 2.5), {"a": [packets]}, b"\x00\xff", {packets}][packets % 4]
        udps.array = np.arange(packets % 3)
        udps.number = np.int64(packets)


streamer = NFStreamer(sys.argv[1], udps=[Awkward()], n_dissections=0, n_meters=1)
print(streamer.to_csv("awkward.csv"))
df = streamer.to_pandas()
pd.testing.assert_frame_equal(df, pd.read_csv("awkward.csv"))
print(df.dtypes.to_string())
for row in df.filter(like="udps").itertuples():
    print(tuple(row))
