"""A defender collects the names that hosts have asked for, by dpkt."""

import socket
import sys

import dpkt
import nfstream


class Names(nfstream.NFPlugin):
    def on_init(self, packet, flow):
        flow.udps.names, flow.udps.answers = [], []
        self.on_update(packet, flow)

    def on_update(self, packet, flow):
        if packet.protocol != 17 or 53 not in (packet.src_port, packet.dst_port):
            return
        ip = dpkt.ip.IP(packet.ip_packet) if packet.ip_version == 4 else dpkt.ip6.IP6(packet.ip_packet)
        try:
            message = dpkt.dns.DNS(ip.data.data)
        except Exception:
            return
        flow.udps.names += [question.name for question in message.qd]
        flow.udps.answers += [socket.inet_ntoa(answer.rdata) for answer in message.an if answer.type == 1]


names = {}
for flow in nfstream.NFStreamer(source=sys.argv[1], udps=Names(), bpf_filter="udp port 53"):
    for name in flow.udps.names:
        names.setdefault(name, set()).update([flow.src_ip, *flow.udps.answers])
for name in sorted(names):
    print(name, sorted(names[name]))
