"""Someone leaves the number of meters to the library, and takes rows as they come."""

import sys

import nfstream

for flow in nfstream.NFStreamer(source=sys.argv[1], splt_analysis=3, n_dissections=0):
    row = dict(zip(flow.keys(), flow.values()))
    del row["id"]
    print(row)
