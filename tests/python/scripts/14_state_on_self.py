"""A detector counts on itself how many ports a source has tried in the last seconds."""

import sys
from collections import defaultdict, deque

from nfstream import NFPlugin, NFStreamer


class ScanDetector(NFPlugin):
    def __init__(self, window_ms):
        super().__init__(window_ms=window_ms)
        self.tried = defaultdict(deque)
        self.flows = 0

    def on_init(self, packet, flow):
        self.flows += 1
        tried = self.tried[flow.src_ip]
        tried.append((packet.time, flow.dst_port))
        while tried[0][0] < packet.time - self.window_ms:
            tried.popleft()
        flow.udps.number = self.flows
        flow.udps.ports_tried = len({port for _, port in tried})

    def on_expire(self, flow):
        flow.udps.sources = len(self.tried)
        flow.udps.alarm = flow.udps.ports_tried > 10


# One meter: each would have a plugin of its own.
for flow in NFStreamer(source=sys.argv[1], udps=ScanDetector(window_ms=5_000), n_meters=1):
    print(flow.src_ip, flow.dst_port, *vars(flow.udps).values(), sep=",")
