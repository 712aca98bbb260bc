"""Does flowmeter for Python behave as its users expect? The argument is a capture with several flows."""

import copy
import gc
import gzip
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import weakref

import pandas

import flowmeter as nfstream
from flowmeter import NFPlugin, NFStreamer
from flowmeter.flow import NFlow
from flowmeter.plugins import SPLT, FlowSlicer

CAPTURE = sys.argv[1]


def streamer(**options):
    return NFStreamer(source=CAPTURE, **{"n_dissections": 0, **options})


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was to be raised")


def constructor():
    for name, value in [
        ("idle_timeout", 1.5), ("idle_timeout", -1), ("accounting_mode", 4), ("decode_tunnels", 1),
        ("n_dissections", 256), ("splt_analysis", 65536), ("udps", FlowSlicer), ("udps", "x"),
        ("bpf_filter", 1), ("system_visibility_mode", 2), ("snapshot_length", 0),
    ]:  # fmt: skip
        error = raises(ValueError, lambda name=name, value=value: streamer(**{name: value}))
        assert name in str(error), error
    for source in (None, 11, "", "/nowhere", [], ["/nowhere"]):
        raises(ValueError, lambda source=source: NFStreamer(source=source))
    raises(TypeError, lambda: NFStreamer(source=CAPTURE, plugins=None))
    assert NFStreamer(CAPTURE, False, None).decode_tunnels is False
    assert "cannot be compiled" in str(raises(ValueError, lambda: list(streamer(bpf_filter="no such"))))


def iteration():
    flows = streamer()
    first, second = list(flows), list(flows)
    assert len(first) > 1 and [f.id for f in first] == [f.id for f in second] == list(range(len(first)))
    raises(TypeError, lambda: next(flows))
    assert len(list(streamer(max_nflows=2))) == 2
    assert next(iter(flows)).id == 0
    for _ in flows:
        break
    assert flows.stats["balance_error"] == 0


def attributes():
    flow = next(iter(streamer()))
    assert isinstance(flow, NFlow) and flow.src_ip and not hasattr(flow, "application_name")
    del flow.ip_version
    raises(AttributeError, lambda: flow.ip_version)
    assert "ip_version" not in flow.keys() and len(flow.keys()) == len(flow.values())
    flow.src_ip = "changed"
    assert dict(zip(flow.keys(), flow.values()))["src_ip"] == "changed" and "src_ip=changed" in str(flow)
    raises(AttributeError, lambda: setattr(flow, "no_such", 1))
    again = pickle.loads(pickle.dumps(flow))
    assert again.keys() == flow.keys() and again.values() == flow.values()
    assert {flow: 1}[flow] == 1 and copy.copy(flow).src_ip == "changed"


def plugins():
    class Raising(NFPlugin):
        def on_update(self, packet, flow):
            raise KeyError("mine")

    error = raises(KeyError, lambda: list(streamer(udps=Raising())))
    notes = getattr(error, "__notes__", ["in on_update of Raising"])
    assert "in on_update of Raising" in notes, notes

    class Late(NFPlugin):
        def on_expire(self, flow):
            flow.udps.ports = (flow.src_port, flow.dst_port)
            flow.expiration_id = 7

    for flow in streamer(udps=[Late(), SPLT(sequence_length=3, accounting_mode=3)]):
        assert flow.udps.ports == (flow.src_port, flow.dst_port) and flow.expiration_id == 7
        assert flow.keys()[-4:] == [
            "udps.splt_direction", "udps.splt_ps", "udps.splt_piat_ms", "udps.ports",
        ]  # fmt: skip
    assert all(flow.bidirectional_packets <= 2 for flow in streamer(udps=FlowSlicer(limit=2)))


def tables():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "flows.csv")
        for options in ({}, {"udps": SPLT(sequence_length=2, accounting_mode=0)}):
            count = streamer(**options).to_csv(path)
            read = pandas.read_csv(path)
            assert count == len(read) > 1
            pandas.testing.assert_frame_equal(read, streamer(**options).to_pandas())
        frame = streamer().to_pandas(columns_to_anonymize=["src_ip"])
        assert frame.src_ip.str.len().eq(128).all()
        assert streamer(bpf_filter="port 1").to_pandas() is None
        assert streamer(bpf_filter="port 1").to_csv(path + ".none") == 0
        assert not os.path.exists(path + ".none")
        numbered = streamer().to_csv(os.path.join(folder, "part.csv"), flows_per_file=1)
        assert len([name for name in os.listdir(folder) if name.startswith("part.")]) == numbered
    raises(ValueError, lambda: streamer().to_csv(flows_per_file=-1))


def harm():
    """What must not be lost, overwritten or hang."""
    with open(CAPTURE, "rb") as capture:
        content = capture.read()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "capture.pcap")

        def holding(what, name=path):
            with open(name, "wb") as file:
                file.write(what)
            return NFStreamer(source=name, n_dissections=0)

        flows = holding(content)
        raises(ValueError, lambda: flows.to_csv(path))
        kept = os.path.join(folder, "kept.csv")
        holding(b"mine", kept)
        assert streamer(bpf_filter="port 1").to_csv(kept) == 0 and open(kept, "rb").read() == b"mine"
        assert streamer(bpf_filter="port 1").to_csv("/dev/null") == 0 and os.path.exists("/dev/null")
        raises(OSError, lambda: streamer().to_csv(os.path.join(folder, "none", "x.csv")))
        if os.path.exists("/dev/full"):
            raises(OSError, lambda: streamer().to_csv("/dev/full"))
        for what in (b"", b"no capture at all, but long enough to look at"):
            raises(ValueError, lambda what=what: list(holding(what)))
        count = len(list(streamer()))
        assert len(list(holding(gzip.compress(content), path + ".gz"))) == count
        cut = holding(content[:-5])
        for take in (lambda: list(cut), lambda: cut.to_pandas(), lambda: cut.to_csv(kept)):
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                assert take() is not None and any("capture.pcap" in str(w.message) for w in said), said
        # An interpreter that ends while a run goes on.
        long = os.path.join(folder, "long.pcap")
        with open(long, "wb") as file:
            file.write(content[:24] + 20_000 * content[24:])
        script = (
            "import flowmeter, sys\n"
            "class Plugin(flowmeter.NFPlugin):\n"
            "    def on_init(self, packet, flow): pass\n"
            "udps = Plugin() if {} else None\n"
            f"flows = iter(flowmeter.NFStreamer({long!r}, n_dissections=0, idle_timeout=0, udps=udps))\n"
            "next(flows)\n"
        )
        for has_plugin in (False, True):
            for more in ("", "sys.modules['kept'] = flows", "raise SystemExit(0)"):
                command = [sys.executable, "-c", script.format(has_plugin) + more]
                subprocess.run(command, check=True, timeout=60)

    class Own(NFPlugin):
        def on_init(self, packet, flow):
            flow.udps.flow = flow

    flow = next(iter(streamer(udps=Own())))
    gone = weakref.ref(flow)
    del flow
    gc.collect()
    assert gone() is None, "a flow that leads to itself stays for ever"

    class Strange:
        def __init__(self, flow):
            self.flow = flow

        def __del__(self):
            self.flow.src_ip, self.flow.bidirectional_packets = "in __del__", 1

    class Dropping(NFPlugin):
        def on_init(self, packet, flow):
            flow.bidirectional_packets = Strange(flow)

        def on_update(self, packet, flow):
            flow.bidirectional_bytes = Strange(flow)

    assert len(list(streamer(udps=Dropping()))) == count


def interruption():
    class Slow(NFPlugin):
        def on_update(self, packet, flow):
            time.sleep(0.1)

    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    try:
        flows = list(streamer(udps=Slow()))
    except KeyboardInterrupt:
        flows = None
    timer.join()
    # It ends with what there was, or in the loop's own code as Python does.
    assert flows is None or 0 < len(flows)


def count(_):
    return len(list(streamer()))


def processes():
    """Pool's workers are daemonic."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert len(set(pool.map(count, range(4)))) == 1


def threads():
    counts = []
    workers = [threading.Thread(target=lambda: counts.append(len(list(streamer())))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(counts) == 4 and len(set(counts)) == 1


for test in (constructor, iteration, attributes, plugins, tables, harm, interruption, processes, threads):
    test()
    print(test.__name__, "ok")
assert nfstream.NFSTREAM_COMPAT == "6.6.0"
