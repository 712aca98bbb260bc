"""Someone who trains on payloads takes the first bytes of the first packets as hexadecimal text."""

import sys

from nfstream import NFPlugin, NFStreamer


class Payload(NFPlugin):
    def on_init(self, packet, flow):
        flow.udps.payload = []
        self.on_update(packet, flow)

    def on_update(self, packet, flow):
        if packet.payload_size > 0 and len(flow.udps.payload) < self.packets:
            payload = packet.ip_packet[-packet.payload_size :]
            flow.udps.payload.append(payload[: self.bytes].hex())


plugin = Payload(packets=3, bytes=24)
rows = NFStreamer(source=sys.argv[1], udps=plugin, accounting_mode=3, n_meters=1).to_csv("payload.csv")
print(rows)
