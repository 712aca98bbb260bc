"""Flows of an interface, in Python. The arguments are an interface, and how many pings it will see."""

import contextlib
import io
import json
import sys

from flowmeter import NFPlugin, NFStreamer

INTERFACE, PINGS = sys.argv[1], int(sys.argv[2])


class Packets(NFPlugin):
    def on_init(self, packet, flow):
        flow.udps.sizes = [packet.ip_size]
        flow.udps.bytes = len(packet.ip_packet)

    def on_update(self, packet, flow):
        flow.udps.sizes.append(packet.ip_size)
        flow.udps.bytes += len(packet.ip_packet)
        assert flow.bidirectional_packets == len(flow.udps.sizes)


streamer = NFStreamer(
    INTERFACE, idle_timeout=1, udps=Packets(), statistical_analysis=True, performance_report=1
)
flows = iter(streamer)
print("metering", flush=True)
with contextlib.redirect_stdout(io.StringIO()) as reported:
    for flow in flows:
        if flow.protocol == 1:
            assert flow.bidirectional_packets == 2 * PINGS == len(flow.udps.sizes), str(flow)
            assert flow.udps.bytes == sum(flow.udps.sizes), str(flow)
            assert flow.application_name == "ICMP", str(flow)
            break
    flows.close()
reports = [json.loads(line) for line in reported.getvalue().splitlines()]
assert reports[-1]["packets_processed"] >= 2 * PINGS, reports
assert sum(reports[-1]["meters_packets_processing_balance"]) == reports[-1]["packets_processed"]
assert {"flows_expired", "packets_ignored", "packets_dropped_filtered_by_kernel"} < set(reports[-1])
assert streamer.stats["balance_error"] == 0 and streamer.stats["dissection_lost"] == 0
for name, value in (("bpf_filter", "icmp"), ("splt_analysis", 256)):
    try:
        next(iter(NFStreamer(INTERFACE, **{name: value})))
    except ValueError as error:
        assert name in str(error)
    else:
        raise AssertionError(name)
print("ok")
