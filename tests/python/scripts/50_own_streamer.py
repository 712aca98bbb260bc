"""A framework derives a streamer of its own, and reads the library's parameters to build its dialog."""

import inspect
import sys

import nfstream


class Streamer(nfstream.NFStreamer):
    """Flows as plain dicts, of servers only."""

    def __init__(self, source, ports=(80, 53), **options):
        super().__init__(source=source, **{"n_dissections": 0, "n_meters": 1, **options})
        self.ports = ports

    def __iter__(self):
        for flow in super().__iter__():
            if flow.dst_port in self.ports:
                flow.dst_mac = "hidden"
                yield flow

    def dicts(self):
        return [dict(zip(flow.keys(), flow.values())) for flow in self]


parameters = inspect.signature(nfstream.NFStreamer).parameters
print([(name, parameters[name].default) for name in list(parameters)[:18]])
streamer = Streamer(sys.argv[1], statistical_analysis=True)
for flow in streamer.dicts():
    print(flow)
print(len(streamer.dicts()), streamer.to_csv("servers.csv"), len(streamer.to_pandas()))
