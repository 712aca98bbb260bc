"""Someone takes out of each flow what is not to be exported, in the plugin and after."""

import sys

from nfstream import NFPlugin, NFStreamer


class Trim(NFPlugin):
    def on_init(self, packet, flow):
        flow.udps.seen = 1
        flow.udps.scratch = bytes(packet.ip_packet[:4]).hex()

    def on_update(self, packet, flow):
        flow.udps.seen += 1

    def on_expire(self, flow):
        del flow.udps.scratch
        del flow.src_oui
        del flow.dst_oui


for flow in NFStreamer(source=sys.argv[1], udps=Trim(), n_dissections=0, n_meters=1):
    for name in ("ip_version", "vlan_id", "tunnel_id", "src_mac", "dst_mac", "expiration_id"):
        delattr(flow, name)
    del flow.bidirectional_first_seen_ms
    flow.src_ip = flow.src_ip.rsplit(".", 1)[0] + ".0"
    flow.bidirectional_duration_ms /= 1000
    assert not hasattr(flow, "ip_version") and "src_oui" not in flow.keys()
    try:
        print(flow.ip_version)
    except AttributeError:
        print(dict(zip(flow.keys(), flow.values())))
