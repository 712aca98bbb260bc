"""Someone with many filters gives each to a process of an executor, and takes flows back."""

import sys
from concurrent.futures import ProcessPoolExecutor

import nfstream


def flows(expression):
    streamer = nfstream.NFStreamer(source=sys.argv[1], bpf_filter=expression, n_dissections=0, n_meters=1)
    return [(flow.id, flow.src_ip, flow.src_port, flow.bidirectional_packets) for flow in streamer]


if __name__ == "__main__":
    with ProcessPoolExecutor(max_workers=2) as executor:
        for found in executor.map(flows, ["tcp", "udp", "port 80", "ip6", "vlan"]):
            print(len(found), found)
