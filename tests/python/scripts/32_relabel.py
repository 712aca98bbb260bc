"""An operator gives own services their names, where the flow ends."""

import sys

from nfstream import NFPlugin, NFStreamer

SERVICES = {("10.0.0.3", 50_200): ("Backup", "Storage"), ("10.0.0.2", 50_123): ("Telemetry", "IoT")}


class Services(NFPlugin):
    def on_expire(self, flow):
        name, category = SERVICES.get((flow.dst_ip, flow.dst_port), (None, None))
        if name:
            flow.application_name = name
            flow.application_category_name = category
            flow.requested_server_name = f"{name.lower()}.example"
        elif flow.application_name == "Unknown":
            flow.application_name = f"port {min(flow.src_port, flow.dst_port)}"
        flow.udps.known = bool(name)


df = NFStreamer(source=sys.argv[1], udps=Services(), n_meters=1).to_pandas(columns_to_anonymize=[])
columns = ["application_name", "application_category_name", "requested_server_name", "udps.known"]
print(df[columns].value_counts(dropna=False, sort=False).to_csv())
df.to_csv("named.csv")
