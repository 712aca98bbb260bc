"""Runs NFStream's shipped plugins over captures.

Each line of standard input is a job, a JSON list: the name of a plugin, its arguments, the path of a
capture, NFStreamer's options. For each, a line with the list of the flows is printed. A plugin that fails
has NFStream wait for ever; then the program ends with an error instead.
"""

import enum
import json
import multiprocessing
import os
import sys
import threading
import time

import numpy

# NFStream 6.6.0's module of the wavelet plugin needs a name that numpy 2 has not.
if not hasattr(numpy, "float_"):
    numpy.float_ = numpy.float64

from nfstream import NFStreamer, plugins  # noqa: E402
from nfstream.plugins.wfeatures import WFPlugin  # noqa: E402

PLUGINS = {
    "slicer": plugins.FlowSlicer,
    "splt": plugins.SPLT,
    "dhcp": plugins.DHCP,
    "mdns": plugins.MDNS,
    "ja4": plugins.JA4,
    "wavelet": WFPlugin,
}

CORE = (
    "expiration_id src_ip src_port dst_ip dst_port protocol bidirectional_first_seen_ms "
    "bidirectional_last_seen_ms bidirectional_packets"
).split()


def plain(value):
    """A value that JSON has."""
    if isinstance(value, enum.Enum):
        return str(value)
    if isinstance(value, numpy.generic):
        return value.item()
    return value


def flow(found):
    """The columns that are compared, in order."""
    core = {name: getattr(found, name) for name in CORE}
    own = {f"udps.{name}": plain(value) for name, value in vars(found.udps).items()}
    return {**core, **own}


def run(plugin, arguments, capture, options):
    """The flows of a job."""
    streamer = NFStreamer(
        source=capture, udps=PLUGINS[plugin](**arguments), n_dissections=0, n_meters=1, **options
    )
    return [flow(found) for found in streamer]


def watch():
    """Ends the program when a meter has died: NFStream would not."""
    meters = set()
    while True:
        time.sleep(0.5)
        meters.update(multiprocessing.active_children())
        died = [meter for meter in meters if meter.exitcode not in (None, 0, -15)]
        if died:
            print("a meter of NFStream died", file=sys.stderr, flush=True)
            os._exit(3)


def main():
    threading.Thread(target=watch, daemon=True).start()
    for line in sys.stdin:
        print(json.dumps(run(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
