"""A researcher writes all features of all flows to a file, to train on them elsewhere."""

import sys

from nfstream import NFStreamer

streamer = NFStreamer(
    source=sys.argv[1],
    decode_tunnels=True,
    bpf_filter=None,
    promiscuous_mode=True,
    snapshot_length=1536,
    idle_timeout=120,
    active_timeout=1800,
    accounting_mode=0,
    udps=None,
    n_dissections=20,
    statistical_analysis=True,
    splt_analysis=20,
    n_meters=1,
    max_nflows=0,
    performance_report=0,
    system_visibility_mode=0,
    system_visibility_poll_ms=100,
)
print(streamer.to_csv("dataset.csv"), "flows")
