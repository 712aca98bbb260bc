"""An analyst lets the table stand beside the capture, under its name."""

import os
import shutil
import sys

import nfstream

os.mkdir("captures")
for name in ("monday.pcap", "tuesday.pcap"):
    shutil.copy(sys.argv[1], f"captures/{name}")
streamer = nfstream.NFStreamer("captures/monday.pcap", n_dissections=0, n_meters=1)
print(streamer.to_csv())
streamer.source = ["captures/tuesday.pcap", "captures/monday.pcap"]
print(streamer.to_csv(None, columns_to_anonymize=[]))
for name in ("monday.pcap", "tuesday.pcap"):
    os.remove(f"captures/{name}")
print(sorted(os.listdir("captures")))
