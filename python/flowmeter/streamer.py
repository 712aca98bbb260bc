"""Where flows come from."""

import atexit
import contextlib
import json
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Optional, Union

from . import _engine, options, performance, tables
from .flow import NFlow
from .plugin import NFPlugin

if TYPE_CHECKING:
    import pandas
    import polars

_Path = Union[str, "os.PathLike[str]"]
_Names = Union[str, Iterable[str]]

#: Runs that go on, with the identity of their streamers. They are ended before the interpreter is, whose
#: threads cannot end later.
_RUNS: "weakref.WeakKeyDictionary[_engine.Run, int]" = weakref.WeakKeyDictionary()


@atexit.register
def _close_runs():
    for run in list(_RUNS):
        try:
            run.close()
        except RuntimeError:
            # Another thread waits for its next flow, and goes with the interpreter.
            pass


@options.checked
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
        Print what an interface's meter has counted every so many seconds, as a line of JSON; 0 for never.
        The whole is in ``stats`` at the end; what is missing or lost is said as a warning.
    system_visibility_mode, system_visibility_poll_ms
        Name the processes of an interface's flows.

    What NFStream has not is given by keyword:

    time_unit
        The unit in which times between packets are measured: ``"ms"``, ``"us"`` or ``"ns"``. They are
        always in ms: with a finer unit, floats.
    sequences
        Lists of the lengths and times of so many packets; True for 65535, live 255.
    group
        Groups of columns beside NFStream's, which flows have as attributes too: ``"record"``,
        ``"times"``, ``"layers"``, ``"headers"``, ``"fingerprints"``, ``"l7-extended"``, ``"owners"``,
        ``"marks"``.
    compat
        ``"nfstream"``, or None for our own rules where they differ; then captures are metered by
        several threads.
    direction
        Of an interface's packets, which are metered: ``"both"``, ``"ingress"`` or ``"egress"``.
    model
        An ONNX file, or several: each is run on every flow that has ended, and what it gives is in the flow's
        ``udps``. It takes the columns that it names itself, or with ``{path: names}`` those, in that
        order. See docs/models.md.
    onnxruntime
        The library that runs models; None for that of the package ``onnxruntime``, or the system's.
    raise_on_damage
        A capture that is damaged or cut off behind its first packets is a ValueError, not a warning.
    """

    def __init__(
        self,
        source: Union[_Path, list, tuple, None] = None,
        decode_tunnels: bool = True,
        bpf_filter: Optional[str] = None,
        promiscuous_mode: bool = True,
        snapshot_length: int = 1536,
        socket_buffer_size: int = 0,
        idle_timeout: int = 120,
        active_timeout: int = 1800,
        accounting_mode: int = 0,
        udps: Union[NFPlugin, Iterable[NFPlugin], None] = None,
        n_dissections: int = 20,
        statistical_analysis: bool = False,
        splt_analysis: int = 0,
        n_meters: int = 0,
        max_nflows: int = 0,
        performance_report: int = 0,
        system_visibility_mode: int = 0,
        system_visibility_poll_ms: int = 100,
        *,
        time_unit: Literal["ms", "us", "ns"] = "ms",
        sequences: Union[bool, int] = 0,
        group: _Names = (),
        compat: Optional[Literal["nfstream"]] = "nfstream",
        direction: Literal["both", "ingress", "egress"] = "both",
        raise_on_damage: bool = False,
        model: Union[_Path, Iterable[_Path], Mapping[_Path, _Names], None] = None,
        onnxruntime: Optional[_Path] = None,
    ) -> None:
        self.source: Any = source
        self.decode_tunnels = decode_tunnels
        self.bpf_filter = bpf_filter
        self.promiscuous_mode = promiscuous_mode
        self.snapshot_length = snapshot_length
        self.socket_buffer_size = socket_buffer_size
        self.idle_timeout = idle_timeout
        self.active_timeout = active_timeout
        self.accounting_mode = accounting_mode
        self.udps: Any = udps
        self.n_dissections = n_dissections
        self.statistical_analysis = statistical_analysis
        self.splt_analysis = splt_analysis
        self.n_meters = n_meters
        self.max_nflows = max_nflows
        self.performance_report = performance_report
        self.system_visibility_mode = system_visibility_mode
        self.system_visibility_poll_ms = system_visibility_poll_ms
        self.time_unit = time_unit
        self.sequences = sequences
        self.group = group
        self.compat = compat
        self.direction = direction
        self.raise_on_damage = raise_on_damage
        self.model: Any = model
        self.onnxruntime = onnxruntime
        self._report: Optional[str] = None

    @property
    def stats(self) -> Optional[dict[str, Any]]:
        """What the last iteration has counted; None before its end."""
        return None if self._report is None else json.loads(self._report)

    def _needs_python(self) -> bool:
        """Whether rows are not as the engine writes them."""
        is_derived = type(self).__iter__ is not NFStreamer.__iter__
        return bool(self.udps) or options.is_live(self) or is_derived

    def __iter__(self) -> Iterator[NFlow]:
        run = _engine.meter(options.of(self), list(self.udps))
        _RUNS[run] = id(self)
        is_reported = self.performance_report and options.is_live(self)
        reported = performance.reported(run, self.performance_report)
        try:
            with reported if is_reported else contextlib.nullcontext():
                yield from run
        finally:
            run.close()
            self._report = run.report

    def __enter__(self) -> "NFStreamer":
        return self

    def __exit__(self, *_: object) -> None:
        for run, owner in list(_RUNS.items()):
            if owner == id(self):
                run.close()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The flows as an Arrow stream, for ``polars.DataFrame(streamer)``, ``pyarrow.table(streamer)``."""
        return tables.stream(tables.Choice(self, None, ()))

    def to_csv(
        self,
        path: Optional[_Path] = None,
        columns_to_anonymize: _Names = (),
        flows_per_file: int = 0,
        rotate_files: int = 0,
        *,
        columns: Optional[_Names] = None,
    ) -> int:
        """Writes the flows to a file, or to one for each ``flows_per_file`` of them; gives their number.

        ``columns`` names those that are written, in that order.
        """
        for name, value in (("flows_per_file", flows_per_file), ("rotate_files", rotate_files)):
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be an integer of at least 0, not {value!r}.")
        path = self._csv_path() if path is None else os.fspath(path)
        self._check_not_source(path)
        choice = tables.Choice(self, columns, columns_to_anonymize)
        return tables.csv(choice, path, flows_per_file, rotate_files)

    def to_parquet(
        self,
        path: _Path,
        columns_to_anonymize: _Names = (),
        *,
        columns: Optional[_Names] = None,
    ) -> int:
        """Writes the flows to a Parquet file, with zstd; gives their number.

        The types are those of ``to_arrow``. Without flows there is no file; whatever goes wrong, the file
        is whole, or what was there before.
        """
        path = os.fspath(path)
        self._check_not_source(path)
        return tables.parquet(tables.Choice(self, columns, columns_to_anonymize), path)

    def to_arrow(
        self,
        columns_to_anonymize: _Names = (),
        *,
        columns: Optional[_Names] = None,
    ) -> _engine.Table:
        """The flows as a ``flowmeter.Table``, which pyarrow, polars, DuckDB and pandas take as it is."""
        return tables.arrow(tables.Choice(self, columns, columns_to_anonymize))

    def to_polars(
        self,
        columns_to_anonymize: _Names = (),
        *,
        columns: Optional[_Names] = None,
    ) -> "polars.DataFrame":
        """The flows as a ``polars.DataFrame``."""
        import polars

        return polars.DataFrame(self.to_arrow(columns_to_anonymize, columns=columns))

    def to_pandas(
        self,
        columns_to_anonymize: _Names = (),
        *,
        columns: Optional[_Names] = None,
        typed: bool = False,
    ) -> "Optional[pandas.DataFrame]":
        """The flows as a DataFrame, as ``pandas.read_csv`` reads them; None if there are none.

        With ``typed`` each column has its type: numbers are int64 or float64, Int64 where some are
        missing; texts stay what they are, "" too; lists stay lists. Without flows it has no rows.
        """
        choice = tables.Choice(self, columns, columns_to_anonymize)
        return tables.typed_pandas(choice) if typed else tables.pandas(choice)

    def _check_not_source(self, path):
        """A capture is not to be overwritten by what is in it."""
        for source in self.source if isinstance(self.source, list) else [self.source]:
            if os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
                raise ValueError(f"path {path!r} is one of the captures; name another file.")

    def _csv_path(self):
        first = self.source[0] if isinstance(self.source, list) else self.source
        return f"{first}.csv"
