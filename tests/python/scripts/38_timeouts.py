"""Someone tunes the timeouts to those of their exporter."""

import sys
from collections import Counter

from nfstream import NFStreamer

for idle, active in ((120, 1800), (15, 60), (1, 1800), (99_999_999, 1_000_000_000), (0, 0), (60, 5)):
    reasons = Counter()
    for flow in NFStreamer(
        source=sys.argv[1], idle_timeout=idle, active_timeout=active, n_dissections=0, n_meters=1
    ):
        reasons[flow.expiration_id] += 1
        print(idle, active, flow.id, flow.expiration_id, flow.src_ip, flow.src_port, flow.protocol,
              flow.bidirectional_first_seen_ms, flow.bidirectional_last_seen_ms, flow.bidirectional_packets,
              flow.src2dst_duration_ms, flow.dst2src_duration_ms)  # fmt: skip
    print(sorted(reasons.items()))
