"""Someone hands flows to others, without the addresses but so that equal ones stay equal."""

import sys

import pandas as pd

import nfstream


class Peer(nfstream.NFPlugin):
    def on_init(self, packet, flow):
        flow.udps.peer = packet.dst_ip
        flow.udps.user = "root" if packet.dst_port == 80 else None


hidden = ["src_ip", "dst_ip", "src_mac", "dst_mac"]
streamer = nfstream.NFStreamer(sys.argv[1], n_dissections=0, n_meters=1)
df = streamer.to_pandas(columns_to_anonymize=hidden)
print({name: sorted(set(df[name].str.len())) for name in hidden})
# The same address has the same digest in any column.
addresses, _ = pd.factorize(pd.concat([df.src_ip, df.dst_ip]), sort=False)
print(addresses.tolist())
print(df.drop(columns=hidden).to_csv())

streamer.to_csv("hidden.csv", columns_to_anonymize=hidden)
again = pd.read_csv("hidden.csv")
assert not set(again.src_ip) & set(df.src_ip), "each call has its own key"
again[hidden] = again[hidden].apply(lambda column: pd.factorize(column)[0])
again.to_csv("hidden.csv", index=False)

streamer.udps = Peer()
df = streamer.to_pandas(columns_to_anonymize=("dst_ip", "udps.peer", "udps.user"))
assert df["udps.peer"].equals(df.dst_ip.rename("udps.peer"))
print(pd.factorize(df["udps.peer"])[0].tolist(), pd.factorize(df["udps.user"])[0].tolist())
