"""An operator fills a database's table with flows, its columns by the first one."""

import sqlite3
import sys

from nfstream import NFStreamer

database = sqlite3.connect(":memory:")
insert = None
for flow in NFStreamer(source=sys.argv[1], statistical_analysis=True):
    if insert is None:
        names = [name for name in flow.keys() if name != "id"]
        database.execute(f"CREATE TABLE flows ({', '.join(names)})")
        insert = f"INSERT INTO flows VALUES ({', '.join('?' * len(names))})"
    database.execute(insert, [getattr(flow, name) for name in names])
print(*(name for name, *_ in database.execute("SELECT name FROM pragma_table_info('flows')")))
order = "bidirectional_first_seen_ms, src_ip, src_port, dst_port, protocol"
for row in database.execute(f"SELECT * FROM flows ORDER BY {order}"):
    print(row)
