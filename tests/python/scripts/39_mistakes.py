"""A program for others handles what they get wrong: files, filters, values, and nothing found."""

import os
import sys

from nfstream import NFPlugin, NFStreamer


def attempt(what, call):
    try:
        print(what, call())
    except Exception as error:
        print(what, type(error).__name__)


def streamer(**options):
    return NFStreamer(**{"source": sys.argv[1], "n_meters": 1, "n_dissections": 0, **options})


attempt("missing", lambda: NFStreamer(source="missing.pcap"))
attempt("no source", lambda: NFStreamer())
attempt("empty list", lambda: NFStreamer(source=[]))
attempt("missing in list", lambda: NFStreamer(source=[sys.argv[1], "missing.pcap"]))
attempt("old keyword", lambda: streamer(plugins=None))
attempt("a class", lambda: streamer(udps=NFPlugin))
for name, value in [("idle_timeout", -1), ("active_timeout", 1.5), ("accounting_mode", 4), ("n_dissections", "x"),
                    ("splt_analysis", 65_536), ("decode_tunnels", 1), ("statistical_analysis", None),
                    ("snapshot_length", 0), ("max_nflows", -3), ("bpf_filter", 5)]:  # fmt: skip
    attempt(name, lambda: streamer(**{name: value}))
attempt("filter", lambda: list(streamer(bpf_filter="not a filter")))
with open("text.pcap", "w") as file:
    file.write("this is no capture at all, but it has its name")
attempt("no capture", lambda: list(NFStreamer(source="text.pcap", n_meters=1)))
nothing = streamer(bpf_filter="tcp port 1 and host 192.0.2.255")
attempt("nothing as list", lambda: list(nothing))
df = nothing.to_pandas()
print("no flows" if df is None else len(df), nothing.to_csv("nothing.csv"), os.path.exists("nothing.csv"))
attempt("parts", lambda: streamer().to_csv("x.csv", flows_per_file=-1))
attempt("rotation", lambda: streamer().to_csv("x.csv", rotate_files="2"))
