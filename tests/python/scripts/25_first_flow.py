"""Someone in a notebook looks at the first flow, then at all in a list, then asks too much."""

import sys

import nfstream

streamer = nfstream.NFStreamer(source=sys.argv[1], n_dissections=0, n_meters=1)
first = next(iter(streamer))
print(first)
flows = list(streamer)
print(len(flows), [flow.src_port for flow in flows[-3:]], flows[0].src_ip == first.src_ip, flows[0] == first)
iterator, count = iter(streamer), 0
while True:
    try:
        flow = next(iterator)
        count += 1
    except StopIteration:
        break
print(count, type(flow).__name__, "src_ip" in dir(flow))
for call in (lambda: next(streamer), lambda: len(streamer), lambda: first["src_ip"], lambda: first.no_such):
    try:
        call()
    except (TypeError, AttributeError) as error:
        print(type(error).__name__)
