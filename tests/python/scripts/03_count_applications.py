"""A network's owner counts bytes of applications and their categories, and the sites that were visited."""

import json
import sys
from collections import Counter, defaultdict

from nfstream import NFStreamer

if __name__ == "__main__":
    applications, sites = defaultdict(Counter), Counter()
    for flow in NFStreamer(source=sys.argv[1]):
        applications[flow.application_category_name][flow.application_name] += flow.bidirectional_bytes
        if flow.requested_server_name:
            sites[flow.requested_server_name, flow.user_agent, flow.content_type] += 1
    with open("applications.json", "w") as file:
        json.dump(applications, file, indent=2, sort_keys=True)
    for site, count in sorted(sites.items()):
        print(*site, count)
