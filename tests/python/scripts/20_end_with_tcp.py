"""Someone wants connections to end as TCP ends them: at RST, or when both sides have sent FIN."""

import sys

from nfstream import NFPlugin, NFStreamer


class TcpEnd(NFPlugin):
    def on_init(self, packet, flow):
        flow.udps.fin = [0, 0]
        flow.udps.reason = "open"
        self.on_update(packet, flow)

    def on_update(self, packet, flow):
        if packet.protocol != 6:
            return
        if packet.rst:
            flow.udps.reason = "rst"
            flow.expiration_id = -1
        elif all(flow.udps.fin) and packet.ack:
            flow.udps.reason = "fin"
            flow.expiration_id = -1
        flow.udps.fin[packet.direction] |= packet.fin


if __name__ == "__main__":
    streamer = NFStreamer(source=sys.argv[1], udps=TcpEnd(), statistical_analysis=True, n_meters=1)
    print(streamer.to_csv(path="connections.csv"))
