"""An impatient user has a bar while flows are read, and a number before each."""

import sys

from nfstream import NFStreamer
from tqdm import tqdm

streamer = NFStreamer(source=sys.argv[1], splt_analysis=5, n_meters=1)
total = 0
for number, flow in enumerate(tqdm(streamer, desc="flows", unit="flow")):
    assert number == flow.id
    total += flow.bidirectional_bytes
    print(number, flow.splt_direction, flow.splt_ps, flow.splt_piat_ms)
print(total)
