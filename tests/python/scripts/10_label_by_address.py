"""A researcher labels flows of a data set by the attackers' addresses and the attack's hours."""

import sys

import numpy as np
from nfstream import NFStreamer

ATTACKERS = {"10.0.0.66", "10.0.0.18"}

df = NFStreamer(source=sys.argv[1], statistical_analysis=True, n_dissections=0, n_meters=1).to_pandas()
is_attacker = df["src_ip"].isin(ATTACKERS) | df["dst_ip"].isin(ATTACKERS)
start = df["bidirectional_first_seen_ms"].min()
is_during = (df["bidirectional_first_seen_ms"] - start).between(60_000, 1_200_000)
df["label"] = np.where(is_attacker & is_during, "attack", "benign")
df["target"] = df.label.astype("category").cat.codes
print(df.label.value_counts().sort_index())
df.drop(columns=["id", "src_mac", "dst_mac"]).to_csv("labelled.csv", index=False)
