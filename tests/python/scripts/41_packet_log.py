"""Someone logs each packet beside its flow, as a dict, a changed copy and a tuple."""

import json
import sys

from nfstream import NFPlugin, NFStreamer


class Log(NFPlugin):
    def on_init(self, packet, flow):
        flow.udps.log = []
        self.on_update(packet, flow)

    def on_update(self, packet, flow):
        record = packet._replace(ip_packet=packet.ip_packet.hex()[:80])._asdict()
        assert tuple(record) == packet._fields and len(packet) == 28
        record["flow"] = [flow.bidirectional_packets, flow.bidirectional_bytes, flow.src2dst_syn_packets]
        flow.udps.log.append(record)


with open("packets.jsonl", "w") as file:
    for flow in NFStreamer(source=sys.argv[1], udps=Log(), statistical_analysis=True, n_dissections=0, n_meters=1):
        for record in flow.udps.log:
            file.write(json.dumps({"id": flow.id, **record}) + "\n")
