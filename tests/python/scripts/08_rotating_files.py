"""An operator keeps no more than three files, the oldest of which is written over."""

import os
import sys

from nfstream import NFStreamer

streamer = NFStreamer(source=sys.argv[1], n_dissections=0, n_meters=1)
print(streamer.to_csv("log.csv", [], 10, 3))
print(sorted(os.listdir(".")))
# Without a number of flows for each, there is one file.
print(streamer.to_csv(path="one.csv", rotate_files=2))
