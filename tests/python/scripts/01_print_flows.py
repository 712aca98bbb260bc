"""Someone who tries the library for the first time prints every flow."""

import sys

from nfstream import NFStreamer

for flow in NFStreamer(source=sys.argv[1], n_meters=1):
    print(flow)
