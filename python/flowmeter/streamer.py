"""Where flows come from."""

import atexit
import csv
import io
import json
import os
import warnings
import weakref
from collections.abc import Iterable

from . import _engine
from .plugin import NFPlugin

#: What an integer parameter may be, with the text that its error says.
_RANGES = {
    "idle_timeout": (0, (2**64 - 1) // 1000, "seconds"),
    "active_timeout": (0, (2**64 - 1) // 1000, "seconds"),
    "accounting_mode": (0, 3, "0 the frame, 1 IP, 2 transport, 3 the payload"),
    "snapshot_length": (1, 2**31 - 1, "bytes"),
    "socket_buffer_size": (0, 2**31 - 1, "bytes"),
    "n_dissections": (0, 255, "packets"),
    "splt_analysis": (0, 65535, "packets"),
    "n_meters": (0, 2**16 - 1, "meters"),
    "max_nflows": (0, 2**64 - 1, "flows"),
    "performance_report": (0, 2**32 - 1, "seconds"),
    "system_visibility_mode": (0, 1, "1 to name processes"),
    "system_visibility_poll_ms": (0, 2**32 - 1, "ms"),
}

#: Packets in the lists of an interface's flows.
_MOST_LIVE_SPLT = 255

_BOOLEANS = ("decode_tunnels", "promiscuous_mode", "statistical_analysis")


#: Runs that go on. They are ended before the interpreter is, whose threads cannot end later.
_RUNS = weakref.WeakSet()


@atexit.register
def _close_runs():
    for run in list(_RUNS):
        try:
            run.close()
        except RuntimeError:
            # Another thread waits for its next flow, and goes with the interpreter.
            pass


def _checked_range(name):
    least, most, unit = _RANGES[name]

    def check(value):
        if not isinstance(value, int) or not least <= value <= most:
            raise ValueError(
                f"{name} must be an integer from {least} to {most} ({unit}), not {value!r}."
            )
        return int(value)

    return check


def _checked_boolean(name):
    def check(value):
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False, not {value!r}.")
        return value

    return check


def _checked_filter(value):
    if value is not None and not isinstance(value, str):
        raise ValueError(f"bpf_filter must be a string or None, not {value!r}.")
    return value


def _checked_udps(value):
    if value is None:
        return ()
    if isinstance(value, NFPlugin):
        return (value,)
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        value = value if hasattr(value, "__len__") else tuple(value)
        if all(isinstance(plugin, NFPlugin) for plugin in value):
            return value
    raise ValueError("udps must be an NFPlugin, or a sequence of NFPlugins.")


def _checked_source(value):
    if isinstance(value, list):
        if not value:
            raise ValueError("source is an empty list; it must name at least one capture.")
        for place, path in enumerate(value):
            if not isinstance(path, (str, os.PathLike)) or not os.path.isfile(path):
                raise ValueError(f"source[{place}] must be an existing capture, not {path!r}.")
            value[place] = os.fspath(path)
        return value
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        if os.path.isfile(value) or value in _interfaces():
            return value
    raise ValueError(f"source must be an existing capture or an interface, not {value!r}.")


def _interfaces():
    try:
        return os.listdir("/sys/class/net")
    except OSError:
        return []


def _parameter(name, check):
    """A parameter that is checked whenever it is set."""
    place = f"_{name}"

    def get(self):
        return getattr(self, place)

    def set_(self, value):
        setattr(self, place, check(value))

    return property(get, set_)


class NFStreamer:
    """The flows of captures or of an interface: each iteration meters anew.

    source
        A capture (pcap or pcapng, also compressed with gzip or zstd), a list of captures that are metered
        as one, or the name of an interface.
    decode_tunnels
        Meter what tunnels carry, not the tunnels.
    bpf_filter
        Meter only what matches, see pcap-filter(7). Captures only.
    promiscuous_mode, snapshot_length, socket_buffer_size
        Of interfaces. The kernel meters, so no socket is used and the last has no effect.
    idle_timeout, active_timeout
        Seconds without a packet, and of age, after which a flow ends.
    accounting_mode
        What a packet's size is: 0 its frame, 1 IP, 2 transport, 3 its payload.
    udps
        An NFPlugin, or several.
    n_dissections
        Packets of a flow that nDPI sees; 0 for none.
    statistical_analysis, splt_analysis
        The 48 statistics; lists of so many first packets.
    n_meters
        Threads; 0 for as many as there are processors. Rows and their order are the same for any
        number. Plugins are called by one thread.
    max_nflows
        End after this many flows; 0 for all.
    performance_report
        Accepted; the balance is in `stats` at the end. What is missing or lost is said as a warning.
    system_visibility_mode, system_visibility_poll_ms
        Name the processes of an interface's flows.
    """

    def __init__(
        self,
        source=None,
        decode_tunnels=True,
        bpf_filter=None,
        promiscuous_mode=True,
        snapshot_length=1536,
        socket_buffer_size=0,
        idle_timeout=120,
        active_timeout=1800,
        accounting_mode=0,
        udps=None,
        n_dissections=20,
        statistical_analysis=False,
        splt_analysis=0,
        n_meters=0,
        max_nflows=0,
        performance_report=0,
        system_visibility_mode=0,
        system_visibility_poll_ms=100,
    ):
        self.source = source
        self.decode_tunnels = decode_tunnels
        self.bpf_filter = bpf_filter
        self.promiscuous_mode = promiscuous_mode
        self.snapshot_length = snapshot_length
        self.socket_buffer_size = socket_buffer_size
        self.idle_timeout = idle_timeout
        self.active_timeout = active_timeout
        self.accounting_mode = accounting_mode
        self.udps = udps
        self.n_dissections = n_dissections
        self.statistical_analysis = statistical_analysis
        self.splt_analysis = splt_analysis
        self.n_meters = n_meters
        self.max_nflows = max_nflows
        self.performance_report = performance_report
        self.system_visibility_mode = system_visibility_mode
        self.system_visibility_poll_ms = system_visibility_poll_ms
        self._report = None

    source = _parameter("source", _checked_source)
    bpf_filter = _parameter("bpf_filter", _checked_filter)
    udps = _parameter("udps", _checked_udps)

    @property
    def stats(self):
        """What the last iteration has counted; None before its end."""
        return None if self._report is None else json.loads(self._report)

    def _is_live(self):
        return isinstance(self.source, str) and not os.path.isfile(self.source)

    def _needs_python(self):
        """Whether rows are not as the engine writes them."""
        is_derived = type(self).__iter__ is not NFStreamer.__iter__
        return bool(self.udps) or self._is_live() or is_derived

    def _options(self):
        is_live = self._is_live()
        if is_live and self.bpf_filter is not None:
            raise ValueError("bpf_filter is for captures; the meter of an interface has none.")
        if is_live and self.splt_analysis > _MOST_LIVE_SPLT:
            raise ValueError(
                f"splt_analysis is at most {_MOST_LIVE_SPLT} for an interface: the kernel keeps the lists."
            )
        if self.bpf_filter is not None:
            error = _engine.filter_error(self.bpf_filter)
            if error is not None:
                raise ValueError(f"bpf_filter {self.bpf_filter!r} cannot be compiled: {error}")
        files = [] if is_live else self.source
        return {
            "files": [files] if isinstance(files, str) else files,
            "interface": self.source if is_live else None,
            "decode_tunnels": self.decode_tunnels,
            "bpf_filter": self.bpf_filter,
            "promiscuous_mode": self.promiscuous_mode,
            "snapshot_length": min(self.snapshot_length, 65535),
            "idle_timeout": self.idle_timeout,
            "active_timeout": self.active_timeout,
            "accounting_mode": self.accounting_mode,
            "n_dissections": self.n_dissections,
            "statistical_analysis": self.statistical_analysis,
            "splt_analysis": self.splt_analysis,
            "n_meters": self.n_meters,
            "max_nflows": self.max_nflows,
            "system_visibility_mode": is_live and bool(self.system_visibility_mode),
            "system_visibility_poll_ms": self.system_visibility_poll_ms,
        }

    def __iter__(self):
        run = _engine.meter(self._options(), list(self.udps))
        _RUNS.add(run)
        try:
            yield from run
        finally:
            run.close()
            self._report = run.report

    def to_csv(self, path=None, columns_to_anonymize=(), flows_per_file=0, rotate_files=0):
        """Writes the flows to a file, or to one for each ``flows_per_file`` of them; gives their number."""
        for name, value in (("flows_per_file", flows_per_file), ("rotate_files", rotate_files)):
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be an integer of at least 0, not {value!r}.")
        path = self._csv_path() if path is None else os.fspath(path)
        self._check_not_source(path)
        hidden = _names(columns_to_anonymize)
        if flows_per_file == 0 and not self._needs_python():
            return _engine.csv_file(self._options(), path, hidden)
        return _write(self, path, hidden, flows_per_file, rotate_files)

    def _check_not_source(self, path):
        """A capture is not to be overwritten by what is in it."""
        for source in self.source if isinstance(self.source, list) else [self.source]:
            if os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
                raise ValueError(f"path {path!r} is one of the captures; name another file.")

    def _csv_path(self):
        first = self.source[0] if isinstance(self.source, list) else self.source
        return f"{first}.csv"

    def to_pandas(self, columns_to_anonymize=()):
        """The flows as a DataFrame, as ``pandas.read_csv`` reads them; None if there are none."""
        import pandas

        hidden = _names(columns_to_anonymize)
        if self._needs_python():
            table = io.StringIO()
            flows = _rows(self, hidden, lambda: table)
            text = table.getvalue().encode()
        else:
            text, flows = _engine.csv_text(self._options(), hidden)
        return pandas.read_csv(io.BytesIO(text)) if flows else None


for _name in _RANGES:
    setattr(NFStreamer, _name, _parameter(_name, _checked_range(_name)))
for _name in _BOOLEANS:
    setattr(NFStreamer, _name, _parameter(_name, _checked_boolean(_name)))


def _names(columns):
    """Names of columns; a text is one of them."""
    return [columns] if isinstance(columns, str) else list(columns)


def _rows(streamer, hidden, opened):
    """Writes the flows to what `opened` gives for each."""
    anonymize = _Anonymizer(hidden)
    flows, last = 0, None
    for flow in streamer:
        out = opened()
        writer = csv.writer(out, lineterminator="\r\n")
        names = flow.keys()
        if out is not last:
            writer.writerow(names)
            anonymize.check(names)
            last = out
        writer.writerow(anonymize.values(names, flow.values()))
        flows += 1
    return flows


def _write(streamer, path, hidden, flows_per_file, rotate_files):
    """Writes CSV by Python, into one file or several."""
    state = {"file": None, "flows": 0, "number": 0}

    def opened():
        is_full = flows_per_file and state["flows"] == flows_per_file
        if state["file"] is None or is_full:
            if state["file"] is not None:
                state["file"].close()
            number = state["number"] % rotate_files if rotate_files else state["number"]
            name = path.replace("csv", f"{number}.csv") if flows_per_file else path
            state["file"] = open(name, "w", newline="", encoding="utf-8")
            state["flows"] = 0
            state["number"] += 1
        state["flows"] += 1
        return state["file"]

    try:
        return _rows(streamer, hidden, opened)
    finally:
        if state["file"] is not None:
            state["file"].close()


class _Anonymizer:
    """Hides the values of columns, as NFStream does."""

    def __init__(self, names):
        self._names = frozenset(names)
        self._key = os.urandom(64)

    def check(self, names):
        for name in self._names.difference(names):
            warnings.warn(f"no column is named {name!r}: it cannot be anonymized", stacklevel=4)

    def values(self, names, values):
        if not self._names:
            return values
        return [self._digest(v) if n in self._names else v for n, v in zip(names, values)]

    def _digest(self, value):
        from hashlib import blake2b

        if value is None:
            return None
        return blake2b(str(value).encode(), digest_size=64, key=self._key).hexdigest()
