"""Are the tables of flowmeter for Python what iterating over the flows gives? The arguments are captures."""

import csv
import enum
import glob
import os
import subprocess
import sys
import tempfile
import warnings

import numpy
import pandas
import polars
import pyarrow
import pyarrow.parquet

import flowmeter
from flowmeter import NFPlugin, NFStreamer
from flowmeter.plugins import SPLT

CAPTURES = sys.argv[1:]

GROUPS = ("record", "times", "layers", "headers", "marks")
#: Without dissection, which takes long to begin; then with.
PLAIN = (
    {"n_dissections": 0, "statistical_analysis": True, "splt_analysis": 5},
    {"n_dissections": 0, "group": GROUPS, "sequences": True, "compat": None},
    {"time_unit": "ns", "idle_timeout": 1, "n_dissections": 0, "decode_tunnels": False, "splt_analysis": 2},
    {"udps": SPLT(sequence_length=3, accounting_mode=0), "n_dissections": 0},
)
DISSECTED = (
    {},
    {"group": GROUPS + ("fingerprints", "l7-extended"), "sequences": True, "compat": None},
    {"time_unit": "us", "splt_analysis": 3, "statistical_analysis": True, "sequences": 4},
)


def runs():
    """Captures, and how they are metered."""
    for capture in CAPTURES:
        is_some = os.path.basename(capture) in ("d_ip6.pcap", "m_sections.pcap", "s_flows.pcap")
        is_long = os.path.dirname(capture) != os.path.dirname(CAPTURES[0])
        for options in PLAIN + (DISSECTED if is_some or is_long else ()):
            yield capture, options


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was to be raised")


def same(one, other):
    """Equal, and of the same type: but what no packet is, -1, is a float in a list of such."""
    if isinstance(one, list):
        if other and isinstance(other[0], float):
            one = list(map(float, one))
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def expected(flows, name):
    own = [dict(flow.items()) for flow in flows]
    return [values.get(name) for values in own]


def check(streamer, where):
    """Gives how many values were compared."""
    flows = list(streamer)
    table = streamer.to_arrow()
    assert len(table) == table.num_rows == len(flows), where
    names = table.column_names
    if flows:
        assert names == flows[0].keys(), where
    columns = {name: expected(flows, name) for name in names}
    for name, values in columns.items():
        assert same(values, table.column(name)), f"{where}: {name}"
    arrow = pyarrow.table(streamer)
    assert arrow.to_pydict() == columns and arrow.equals(pyarrow.table(table)), where
    assert arrow.schema == pyarrow.schema(table), where
    for frame in (streamer.to_polars(), polars.DataFrame(streamer), polars.DataFrame(table)):
        assert frame.to_dict(as_series=False) == columns, where
    typed = streamer.to_pandas(typed=True)
    assert list(typed.columns) == names and len(typed) == len(flows), where
    for name, values in columns.items():
        found = [None if isinstance(v, float) and v != v or v is pandas.NA else v for v in typed[name].tolist()]
        assert same(values, found), f"{where}: {name}"
    check_files(streamer, arrow, columns, where)
    check_selection(streamer, names, columns, where)
    return len(flows) * len(names)


def check_files(streamer, arrow, columns, where):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "flows.parquet")
        assert streamer.to_parquet(path) == arrow.num_rows, where
        assert os.path.exists(path) == (arrow.num_rows > 0), where
        if arrow.num_rows:
            assert pyarrow.parquet.read_table(path).equals(arrow), where
        text = os.path.join(folder, "flows.csv")
        assert streamer.to_csv(text) == arrow.num_rows, where
        if not arrow.num_rows:
            return
        with open(text, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for name, values in columns.items():
            for row, value in zip(rows, values):
                assert is_text_of(row[name], value), f"{where}: {name} {row[name]!r}, not {value!r}"


def as_read_csv():
    """``to_pandas`` is what pandas reads of ``to_csv``, however it is made."""
    for capture, options in runs():
        streamer = NFStreamer(capture, **options)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "flows.csv")
            frame = streamer.to_pandas()
            if streamer.to_csv(path) == 0:
                assert frame is None
                continue
            same_frame(frame, pandas.read_csv(path))
            names = list(frame.columns)[::-3]
            same_frame(streamer.to_pandas(columns=names), frame[names])


def same_frame(one, other):
    pandas.testing.assert_frame_equal(one, other, check_exact=True)


def is_text_of(text, value):
    if value is None:
        return text == ""
    if isinstance(value, float):
        return float(text) == value
    if isinstance(value, list) and value and isinstance(value[0], (float, str)):
        return eval(text) == value
    return text == str(value)


def check_selection(streamer, names, columns, where):
    chosen = [names[-1], "dst_port", "src_ip"]
    values = {name: columns[name] for name in chosen}
    table = streamer.to_arrow(columns=chosen)
    assert table.column_names == chosen, where
    assert pyarrow.table(table).to_pydict() == values, where
    assert streamer.to_polars(columns=chosen).to_dict(as_series=False) == values, where
    frames = [streamer.to_pandas(columns=chosen, typed=True), streamer.to_pandas(columns=chosen)]
    whole = streamer.to_pandas()
    if whole is None:
        assert frames[1] is None
    else:
        pandas.testing.assert_frame_equal(frames[1], whole[chosen])
    assert list(frames[0].columns) == chosen
    assert streamer.to_arrow(columns="src_ip").column_names == ["src_ip"]


def values():
    compared = 0
    for capture, options in runs():
        compared += check(NFStreamer(capture, **options), f"{capture} {options}")
    print(f"{compared} values are the same")


class Colour(enum.Enum):
    RED = 1


class Keeping(NFPlugin):
    """Keeps values of many types, some of them in some flows alone."""

    MANY = {
        "count": 7,
        "share": 0.5,
        "both": (1, 2.5),
        "yes": True,
        "text": "a",
        "bytes": b"\x00\xff",
        "ints": [1, 2],
        "texts": ("a", "b"),
        "nested": [[1], [], [2, 3]],
        "array": numpy.arange(3),
        "scalar": numpy.float32(0.5),
        "big": 2**63 + 1,
        "huge": 2**70,
        "colour": Colour.RED,
        "table": {"a": 1},
        "mixed": [1, "a"],
        "empty": [],
        "nothing": None,
    }

    def on_init(self, packet, flow):
        for name, value in self.MANY.items():
            setattr(flow.udps, name, value)
        flow.udps.both = self.MANY["both"][flow.src_port % 2]
        flow.udps.uneven = flow.src_port if flow.src_port % 2 else str(flow.src_port)

    def on_update(self, packet, flow):
        flow.udps.later = flow.bidirectional_packets

    def on_expire(self, flow):
        flow.application_name = "mine"
        # No column of these flows.
        flow.splt_ps = [flow.src_port]
        del flow.vlan_id
        if flow.src_port % 2:
            flow.src_mac = None


#: What Arrow has of them.
TYPES = {
    "count": ("int64", 7),
    "share": ("double", 0.5),
    "yes": ("bool", True),
    "text": ("string", "a"),
    "bytes": ("binary", b"\x00\xff"),
    "ints": ("list<item: int64>", [1, 2]),
    "texts": ("list<item: string>", ["a", "b"]),
    "nested": ("list<item: list<item: int64>>", [[1], [], [2, 3]]),
    "array": ("list<item: int64>", [0, 1, 2]),
    "scalar": ("double", 0.5),
    "big": ("uint64", 2**63 + 1),
    "huge": ("string", str(2**70)),
    "colour": ("string", "Colour.RED"),
    "table": ("string", "{'a': 1}"),
    "mixed": ("string", "[1, 'a']"),
    "empty": ("list<item: null>", []),
    "nothing": ("null", None),
}


def made(path):
    """A capture of UDP flows with 1, 2 and 3 packets."""
    frames = []
    for flow in range(6):
        ports = (1000 + flow).to_bytes(2, "big") + (53).to_bytes(2, "big")
        udp = ports + bytes([0, 11, 0, 0]) + b"abc"
        ip = bytes([0x45, 0, 0, 20 + len(udp), 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]) + udp
        for number in range(1 + flow % 3):
            head = (flow, number * 1500, len(ip), len(ip))
            frames.append(b"".join(n.to_bytes(4, "little") for n in head) + ip)
    head = bytes.fromhex("d4c3b2a1020004000000000000000000ffff000065000000")
    with open(path, "wb") as file:
        file.write(head + b"".join(frames))
    return path


def plugins():
    with tempfile.TemporaryDirectory() as folder:
        kept(NFStreamer(made(os.path.join(folder, "made.pcap")), udps=Keeping()))


def kept(streamer):
    flows = list(streamer)
    arrow = pyarrow.table(streamer)
    for name, (kind, value) in TYPES.items():
        column = arrow[f"udps.{name}"]
        assert str(column.type) == kind, f"{name}: {column.type}"
        assert column.to_pylist() == [value] * len(flows), name
    assert str(arrow["udps.both"].type) == "double" and str(arrow["udps.uneven"].type) == "string"
    assert arrow["udps.uneven"].to_pylist() == [str(flow.udps.uneven) for flow in flows]
    later = [getattr(flow.udps, "later", None) for flow in flows]
    assert None in later and arrow["udps.later"].to_pylist() == later
    assert set(arrow["application_name"].to_pylist()) == {"mine"} and "vlan_id" not in arrow.column_names
    assert arrow["splt_ps"].to_pylist() == [[flow.src_port] for flow in flows]
    assert arrow.column_names[:-1] == [name for name in flows[0].keys() if name != "udps.later"]
    assert arrow["src_mac"].to_pylist() == [flow.src_mac for flow in flows]
    assert streamer.to_arrow(columns=["vlan_id", "id"]).column("vlan_id") == [None] * len(flows)
    for columns in (["udps.later"], ["udps.text", "src_ip", "udps.later"]):
        assert streamer.to_arrow(columns=columns).column_names == columns
        assert list(streamer.to_pandas(columns=columns).columns) == columns
    for take in (streamer.to_arrow, streamer.to_pandas):
        error = raises(ValueError, lambda take=take: take(columns=["udps.no_such"]))
        assert "udps.no_such" in str(error), error
    hidden = streamer.to_arrow(columns_to_anonymize=["src_ip", "udps.text", "application_name"])
    for name in ("src_ip", "udps.text", "application_name"):
        assert {len(value) for value in hidden.column(name)} == {128}, name
    uneven(streamer, flows, later)


def uneven(streamer, flows, later):
    """A column that the first flow has not is under its own name."""
    with tempfile.TemporaryDirectory() as folder:
        for options, names in (({}, ["f.csv"]), ({"flows_per_file": 2}, None)):
            streamer.to_csv(os.path.join(folder, "f.csv"), **options)
            if names is None:
                names = [f"f.{n}.csv" for n in range((len(flows) + 1) // 2)]
            rows = []
            for name in names:
                with open(os.path.join(folder, name), newline="", encoding="utf-8") as file:
                    table = list(csv.reader(file))
                assert {len(row) for row in table} == {len(table[0])}, name
                rows += [dict(zip(table[0], row)) for row in table[1:]]
            assert [row["src_ip"] for row in rows] == [flow.src_ip for flow in flows]
            assert [row.get("udps.later", "") for row in rows] == [str(n or "") for n in later]
        assert not glob.glob(os.path.join(folder, "*.even"))
    frame = streamer.to_pandas()
    assert [None if n != n else int(n) for n in frame["udps.later"]] == later


def several():
    """A capture with several flows."""
    return next(path for path in CAPTURES if path.endswith("s_flows.pcap"))


def errors():
    streamer = NFStreamer(several(), n_dissections=0)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "flows")
        for call in (
            lambda columns: streamer.to_csv(path, columns=columns),
            lambda columns: streamer.to_parquet(path, columns=columns),
            lambda columns: streamer.to_arrow(columns=columns),
            lambda columns: streamer.to_polars(columns=columns),
            lambda columns: streamer.to_pandas(columns=columns),
            lambda columns: streamer.to_pandas(columns=columns, typed=True),
        ):
            error = raises(ValueError, lambda call=call: call(["src_ip", "no_such"]))
            assert "no_such" in str(error), error
            # It is a column, but not of these flows.
            assert "splt_ps" in str(raises(ValueError, lambda call=call: call(["splt_ps"])))
            raises(ValueError, lambda call=call: call(["src_ip", "src_ip"]))
            raises(ValueError, lambda call=call: call([]))
        assert os.listdir(folder) == []
    hidden = streamer.to_arrow(columns_to_anonymize="src_ip", columns=["src_ip", "dst_ip"])
    assert {len(value) for value in hidden.column("src_ip")} == {128}
    none = NFStreamer(several(), bpf_filter="port 1")
    assert none.to_arrow().num_rows == len(none.to_polars()) == len(none.to_pandas(typed=True)) == 0
    assert none.to_pandas() is None and "src_ip" in none.to_pandas(typed=True).columns
    raises(KeyError, lambda: streamer.to_arrow().column("no_such"))


#: Writes a file that grows too large in the midst.
LIMITED = """
import resource, signal, sys
import flowmeter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    flowmeter.NFStreamer(sys.argv[1]).to_parquet(sys.argv[2])
except OSError as error:
    assert sys.argv[2] in str(error), error
else:
    raise AssertionError("it was to fail")
"""


def parquet():
    """What must not be lost, or left behind."""
    capture = several()
    streamer = NFStreamer(capture, n_dissections=0)

    class Failing(NFPlugin):
        def on_expire(self, flow):
            raise KeyError("mine")

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "flows.parquet")
        subprocess.run([sys.executable, "-c", LIMITED, capture, path], check=True, timeout=60)
        assert os.listdir(folder) == []
        assert NFStreamer(capture, bpf_filter="port 1").to_parquet(path) == 0
        raises(OSError, lambda: streamer.to_parquet(os.path.join(folder, "none", "x.parquet")))
        raises(KeyError, lambda: NFStreamer(capture, udps=Failing()).to_parquet(path))
        assert os.listdir(folder) == []
        with open(path, "wb") as file:
            file.write(b"mine")
        raises(KeyError, lambda: NFStreamer(capture, udps=Failing()).to_parquet(path))
        subprocess.run([sys.executable, "-c", LIMITED, capture, path], check=True, timeout=60)
        assert os.listdir(folder) == ["flows.parquet"] and open(path, "rb").read() == b"mine"
        mode = os.umask(0o022)
        os.remove(path)
        link = os.path.join(folder, "link.parquet")
        os.symlink(path, link)
        os.umask(mode)
        assert streamer.to_parquet(link) == len(list(streamer)) and os.path.islink(link)
        assert os.stat(path).st_mode & 0o777 == 0o666 & ~mode
        file = pyarrow.parquet.ParquetFile(path)
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"
        copy = os.path.join(folder, "capture.pcap")
        with open(capture, "rb") as source, open(copy, "wb") as target:
            target.write(source.read())
        raises(ValueError, lambda: NFStreamer(copy).to_parquet(copy))
        damaged(copy, path)
    assert streamer.to_parquet("/dev/null") > 0
    if os.path.exists("/dev/full"):
        raises(OSError, lambda: streamer.to_parquet("/dev/full"))


def damaged(capture, path):
    """A capture that is cut off."""
    with open(capture, "r+b") as file:
        file.truncate(os.path.getsize(capture) - 5)
    for take in (
        lambda **options: pyarrow.table(NFStreamer(capture, **options)),
        lambda **options: NFStreamer(capture, **options).to_arrow(),
        lambda **options: NFStreamer(capture, **options).to_parquet(path),
        lambda **options: NFStreamer(capture, **options).to_csv(path + ".csv"),
        lambda **options: list(NFStreamer(capture, **options)),
    ):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            take()
            assert any("capture.pcap" in str(w.message) for w in said), said
        assert "capture.pcap" in str(raises(Exception, lambda take=take: take(raise_on_damage=True)))


def options():
    capture = several()
    streamer = NFStreamer((capture,), idle_timeout=numpy.int64(5), n_dissections=numpy.uint8(0))
    assert streamer.source == [capture] and type(streamer.idle_timeout) is int
    for name, value in [
        ("time_unit", "s"), ("sequences", -1), ("sequences", "all"), ("group", "no_such"), ("group", 5),
        ("compat", "other"), ("direction", "up"), ("raise_on_damage", 1), ("idle_timeout", numpy.float64(5)),
        ("source", ()), ("source", ("/nowhere",)),
    ]:  # fmt: skip
        error = raises(ValueError, lambda name=name, value=value: NFStreamer(**{"source": capture, name: value}))
        assert name in str(error), error
    raises(TypeError, lambda: NFStreamer(capture, no_such=1))
    for bad in ({"group": "l7-extended", "n_dissections": 0}, {"group": "owners"}):
        raises(ValueError, lambda bad=bad: list(NFStreamer(capture, **bad)))
    with NFStreamer(capture) as streamer:
        flows = iter(streamer)
        flow = next(flows)
    assert list(flows) == [] and flow.to_dict() == dict(flow.items())
    fine = next(iter(NFStreamer(capture, group="times", sequences=2, time_unit="ns", splt_analysis=2)))
    assert fine.bidirectional_first_seen_ns // 10**6 == fine.bidirectional_first_seen_ms
    assert isinstance(fine.splt_piat_ms[0], float) and len(fine.ip_lengths) <= 2
    assert "flow_end_reason" not in fine.keys()


def big():
    """A table of several batches."""
    with open(several(), "rb") as capture:
        content = capture.read()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "big.pcap")
        with open(path, "wb") as file:
            file.write(content[:24] + 10_000 * content[24:])
        streamer = NFStreamer(path, n_dissections=0, idle_timeout=0)
        reader = pyarrow.RecordBatchReader.from_stream(streamer)
        first = reader.read_next_batch()
        assert first.num_rows == 65_536
        # Who reads no further ends the run.
        del reader, first
        table = pyarrow.table(streamer)
        assert table["id"].num_chunks > 1 and table["id"].to_pylist() == list(range(len(table)))
        assert streamer.stats["balance_error"] == 0
        parquet = os.path.join(folder, "big.parquet")
        assert streamer.to_parquet(parquet) == len(table)
        assert pyarrow.parquet.read_table(parquet).equals(table)
        with_plugin = NFStreamer(path, n_dissections=0, idle_timeout=0, udps=NFPlugin())
        assert pyarrow.table(with_plugin).equals(table)
        assert len(streamer.to_pandas(columns=["id"])) == len(table)


# What is said of captures is tested where it is expected.
warnings.simplefilter("ignore", RuntimeWarning)
for test in (values, as_read_csv, plugins, errors, parquet, options, big):
    test()
    print(test.__name__, "ok", flush=True)
assert flowmeter.Table is type(NFStreamer(several()).to_arrow())
