"""Someone keeps flows as objects on disk, and goes on another day."""

import copy
import pickle
import sys

import nfstream
from nfstream.flow import NFlow


class First(nfstream.NFPlugin):
    def on_init(self, packet, flow):
        flow.udps.first = packet.ip_packet
        flow.udps.by_flag = {name: getattr(packet, name) for name in ("syn", "ack", "fin")}


streamer = nfstream.NFStreamer(sys.argv[1], udps=First(), statistical_analysis=True, n_meters=1)
with open("flows.pickle", "wb") as file:
    pickle.dump([flow for flow in streamer], file)
with open("flows.pickle", "rb") as file:
    flows = pickle.load(file)
for flow in flows:
    other = copy.copy(flow)
    assert isinstance(flow, NFlow) and other.values() == flow.values() and other != flow
    print(dict(zip(flow.keys(), flow.values())))
open("flows.pickle", "w").close()
