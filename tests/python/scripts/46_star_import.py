"""Someone who learnt from a notebook imports everything, and passes most by position."""

import sys
from pathlib import Path

from nfstream import *

for flow in NFStreamer(Path(sys.argv[1]), False, "udp or icmp", True, 1536, 0, 30, 600, 2, None, 0, True, 3, 1):
    print(flow.id, flow.src_oui, flow.dst_oui, *flow.values()[5:], sep="|")


class Half(NFPlugin):
    """Sees every second packet."""

    def on_init(self, packet, flow):
        flow.udps.kept = [packet[0]]

    def on_update(self, packet, flow):
        time, gap, direction, *rest = packet
        if flow.bidirectional_packets % 2:
            flow.udps.kept.append((time, gap, direction, rest[3], hash(packet) == hash(tuple(packet))))


print(NFStreamer(source=sys.argv[1], udps=Half(), n_meters=1, n_dissections=False).to_pandas()["udps.kept"].tolist())
