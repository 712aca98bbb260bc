"""An analyst has one capture in several files, as tcpdump -C writes them, and meters them as one."""

import glob
import os
import sys
from pathlib import Path

import dpkt
import nfstream

with open(sys.argv[1], "rb") as whole:
    packets = list(dpkt.pcap.UniversalReader(whole))
for number in range(3):
    with open(f"piece{number}.pcap", "wb") as piece:
        writer = dpkt.pcap.Writer(piece, snaplen=65_535)
        for time, frame in packets[len(packets) * number // 3 : len(packets) * (number + 1) // 3]:
            writer.writepkt(frame, time)
names = sorted(glob.glob("piece*.pcap"))
for source in (names, [Path(name) for name in names[:2]], names[::-1], Path(names[0])):
    for flow in nfstream.NFStreamer(source=source, statistical_analysis=True, n_dissections=0, n_meters=1):
        print(*flow.values(), sep=",")
for name in names:
    os.remove(name)
