"""A data scientist takes a few columns at once, and looks at sums for each pair of hosts."""

import sys

from nfstream import NFStreamer

df = NFStreamer(source=sys.argv[1], statistical_analysis=True, n_meters=1).to_pandas()[
    ["src_ip", "dst_ip", "dst_port", "protocol", "bidirectional_packets", "bidirectional_bytes",
     "bidirectional_mean_ps", "application_name", "requested_server_name", "client_fingerprint"]
]  # fmt: skip
print(df.dtypes)
print(df.isna().sum())
print(df.describe().to_csv())
pairs = df.groupby(["src_ip", "dst_ip"])[["bidirectional_packets", "bidirectional_bytes"]].sum()
pairs.sort_values("bidirectional_bytes", ascending=False).to_csv("pairs.csv")
