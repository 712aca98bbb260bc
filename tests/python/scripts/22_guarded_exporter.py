"""A collector writes JSON lines from whatever attributes a version of the library has."""

import json
import sys

from nfstream import NFStreamer

WANTED = ["src_ip", "dst_ip", "protocol", "application_name", "src2dst_max_ps", "splt_ps", "http_user_agent"]

with open("flows.jsonl", "w") as file:
    for options in ({}, {"n_dissections": 0}, {"statistical_analysis": True, "splt_analysis": 3}):
        for flow in NFStreamer(source=sys.argv[1], n_meters=1, **options):
            record = {name: getattr(flow, name, None) for name in WANTED}
            record["fields"] = [name for name in flow.__slots__ if hasattr(flow, name)]
            if flow.id < 3:
                record["all"] = {name: str(getattr(flow, name, "n/a")) for name in flow.__slots__}
            file.write(json.dumps(record, default=str) + "\n")
