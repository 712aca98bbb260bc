"""A network's owner wants to know who sends most, whatever the order of the flows."""

import sys
from collections import Counter

import nfstream

sent, flows = Counter(), 0
for flow in nfstream.NFStreamer(sys.argv[1]):
    sent[flow.src_ip] += flow.src2dst_bytes
    sent[flow.dst_ip] += flow.dst2src_bytes
    flows += 1
for address, count in sorted(sent.items(), key=lambda item: (-item[1], item[0])):
    print(f"{address:<40}{count:>12}")
print(flows, "flows")
