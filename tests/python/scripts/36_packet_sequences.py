"""Someone who trains on sequences reads lists back from the table's text."""

import ast
import json
import sys

import numpy as np
from nfstream import NFStreamer

df = NFStreamer(source=sys.argv[1], splt_analysis=10, accounting_mode=1, n_dissections=0, n_meters=1).to_pandas()
assert isinstance(df.splt_ps[0], str)
sizes = np.array([json.loads(text) for text in df.splt_ps])
directions = np.array([ast.literal_eval(text) for text in df.splt_direction])
gaps = np.array(df.splt_piat_ms.apply(ast.literal_eval).tolist())
signed = np.where(directions == 1, -sizes, sizes)
print(sizes.shape, (sizes == -1).sum(), gaps.max())
for column in range(10):
    df[f"size_{column}"] = signed[:, column]
df.drop(columns=["splt_ps", "splt_direction"]).to_csv("sequences.csv", index=False)
