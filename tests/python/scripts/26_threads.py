"""A service reads captures in threads, so that it can answer meanwhile."""

import queue
import sys
import threading

from nfstream import NFStreamer

results = queue.Queue()


def work(number, expression):
    streamer = NFStreamer(source=sys.argv[1], bpf_filter=expression, n_dissections=0, n_meters=1)
    for flow in streamer:
        results.put((number, flow.id, flow.src_ip, flow.dst_ip, flow.protocol, flow.bidirectional_bytes))


expressions = ["tcp", "udp", "icmp or icmp6", "host 10.0.0.11"]
threads = [threading.Thread(target=work, args=task, daemon=True) for task in enumerate(expressions)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for row in sorted(results.queue):
    print(*row)
