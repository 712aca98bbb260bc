"""Someone keeps the packets of a flow as tuples, and makes a table of them after it has ended."""

import sys

import pandas as pd
from nfstream import NFPlugin, NFStreamer
from nfstream.flow import UDPS, nf_packet


class Keep(NFPlugin):
    def on_init(self, packet, flow):
        flow.udps.packets = [tuple(packet)]
        flow.udps.text = str(packet)

    def on_update(self, packet, flow):
        if len(flow.udps.packets) < self.count:
            flow.udps.packets.append(tuple(packet))


for flow in NFStreamer(source=sys.argv[1], udps=Keep(count=4), n_dissections=0, n_meters=1):
    packets = [nf_packet._make(packet) for packet in flow.udps.packets]
    assert isinstance(flow.udps, UDPS) and flow.udps.text == repr(packets[0])
    print(flow.udps.text)
    print(pd.DataFrame(packets).drop(columns="ip_packet").to_csv(header=False))
    del flow.udps.packets
    print(vars(flow.udps).keys(), flow.keys()[-1], hasattr(flow.udps, "packets"))
