"""A careful developer imports from the submodules, has type hints, and keys a dict by the flow in a plugin."""

import sys
from typing import Dict, Iterator, List

from nfstream.flow import NFlow
from nfstream.plugin import NFPlugin
from nfstream.streamer import NFStreamer
import nfstream


class Longest(NFPlugin):
    def __init__(self) -> None:
        self.open: Dict[int, List[int]] = {}

    def on_init(self, packet, flow: NFlow) -> None:
        self.open[flow.__hash__()] = [packet.payload_size]

    def on_update(self, packet, flow: NFlow) -> None:
        self.open[flow.__hash__()].append(packet.payload_size)

    def on_expire(self, flow: NFlow) -> None:
        sizes = self.open.pop(flow.__hash__())
        flow.udps.longest, flow.udps.place = max(sizes), sizes.index(max(sizes))


def large(flows: Iterator[NFlow], least: int) -> Iterator[NFlow]:
    return (flow for flow in flows if isinstance(flow, nfstream.flow.NFlow) and flow.udps.longest >= least)


assert issubclass(Longest, nfstream.NFPlugin) and nfstream.NFStreamer is NFStreamer and nfstream.__version__
for flow in large(iter(NFStreamer(sys.argv[1], udps=Longest(), n_dissections=0, n_meters=1)), 100):
    print(flow.id, flow.src_ip, flow.udps.longest, flow.udps.place)
