"""A framework passes its own collection of plugins, and reads back how the streamer is set."""

import sys

import nfstream


class Counting(nfstream.NFPlugin):
    def on_init(self, packet, flow):
        setattr(flow.udps, self.name, 1)

    def on_update(self, packet, flow):
        if getattr(packet, self.flag):
            setattr(flow.udps, self.name, getattr(flow.udps, self.name) + 1)


class Registry:
    def __init__(self):
        self.plugins = {}

    def add(self, **arguments):
        self.plugins[arguments["name"]] = Counting(**arguments)

    def __iter__(self):
        return iter(self.plugins.values())

    def __len__(self):
        return len(self.plugins)


registry = Registry()
for flag in ("syn", "psh", "fin"):
    registry.add(name=f"with_{flag}", flag=flag)
streamer = nfstream.NFStreamer(source=sys.argv[1], udps=registry, n_dissections=0, n_meters=1)
registry.add(name="with_ack", flag="ack")
settings = "decode_tunnels bpf_filter promiscuous_mode snapshot_length socket_buffer_size idle_timeout active_timeout"
print([getattr(streamer, name) for name in settings.split()], streamer.udps is registry, len(streamer.udps))
print(streamer.to_pandas().filter(like="with_").to_csv())
streamer.udps = None
print(streamer.udps, hasattr(next(iter(streamer)), "udps"))
