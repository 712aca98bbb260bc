"""Someone compares sizes as the frame, IP, transport and the application see them."""

import sys

from nfstream import NFStreamer

for mode in range(4):
    for decode_tunnels in (True, False):
        streamer = NFStreamer(
            source=sys.argv[1],
            accounting_mode=mode,
            decode_tunnels=decode_tunnels,
            statistical_analysis=True,
            splt_analysis=3,
            n_dissections=0,
            n_meters=1,
        )
        print(mode, streamer.to_csv(f"mode{mode}{decode_tunnels}.csv"))
        flow = next(iter(streamer))
        print(hasattr(flow, "tunnel_id"), flow.bidirectional_bytes, flow.splt_ps)
