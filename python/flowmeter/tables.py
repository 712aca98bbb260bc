"""How do the flows of a streamer become a table?"""

import io

from . import _engine, csvfile, options
from .flow import SLOTS

#: numpy's types by those of a table's columns.
_NUMBERS = ("int64", "uint64", "float64", "bool")


def names(columns):
    """Names of columns; a text is one of them."""
    return [columns] if isinstance(columns, str) else list(columns)


class Choice:
    """Which columns of a streamer's flows are wanted, and how."""

    def __init__(self, streamer, columns, columns_to_anonymize):
        self.streamer = streamer
        self.options = options.of(streamer)
        #: Whether flows have to come through Python.
        self.is_own = streamer._needs_python()
        self.columns = None if columns is None else self._checked(names(columns))
        self.hidden = names(columns_to_anonymize)

    def _checked(self, columns):
        if not columns:
            raise ValueError("columns is empty; it must name at least one column.")
        known = set(_engine.names(self.options))
        for name in columns:
            if name not in known and not self._may_be_set(name):
                raise ValueError(f"columns has {name!r}, which no flow of this streamer has.")
            if columns.count(name) > 1:
                raise ValueError(f"columns has {name!r} twice.")
        return columns

    def _may_be_set(self, name):
        """Whether plugins may give flows an attribute of this name."""
        is_name = isinstance(name, str) and (name.startswith("udps.") or name in SLOTS)
        return is_name and bool(self.streamer.udps)

    @property
    def chosen(self):
        """For the engine."""
        return {"columns": self.columns, "columns_to_anonymize": self.hidden}

    def anonymizer(self):
        """For flows that come through Python."""
        return csvfile.Anonymizer(self.hidden)


def arrow(choice):
    """The flows as a ``Table``."""
    if not choice.is_own:
        table, report = _engine.table(choice.options, choice.chosen)
        choice.streamer._report = report
        return table
    collector = _engine.Collector(choice.options, choice.chosen)
    for flow in choice.streamer:
        collector.add(flow)
    return collector.table()


def stream(choice):
    """The flows as a capsule with an Arrow stream, which meters while it is read."""
    if choice.is_own:
        return arrow(choice).__arrow_c_stream__()

    def done(report):
        choice.streamer._report = report

    return _engine.arrow_stream(choice.options, choice.chosen, done)


def parquet(choice, path):
    """Writes the flows to a Parquet file; gives their number."""
    if choice.is_own:
        return arrow(choice).write_parquet(path)
    flows, choice.streamer._report = _engine.parquet_file(choice.options, path, choice.chosen)
    return flows


def csv(choice, path, flows_per_file, rotate_files):
    """Writes the flows to a CSV file, or several; gives their number."""
    if choice.is_own or flows_per_file:
        return csvfile.to_files(
            choice.streamer, path, choice.anonymizer(), choice.columns, flows_per_file, rotate_files
        )
    flows, choice.streamer._report = _engine.csv_file(choice.options, path, choice.chosen)
    return flows


def pandas(choice):
    """The flows as ``pandas.read_csv`` reads them; None if there are none."""
    import pandas

    if choice.is_own:
        text, flows = csvfile.in_memory(choice.streamer, choice.anonymizer(), choice.columns)
    else:
        text, flows, choice.streamer._report = _engine.csv_text(choice.options, choice.chosen)
    return pandas.read_csv(io.BytesIO(text)) if flows else None


def typed_pandas(choice):
    """The flows as a DataFrame of a table's types."""
    import pandas

    series = {name: _series(*column) for name, *column in arrow(choice)._columns()}
    return pandas.DataFrame(series)


def _series(kind, values, missing):
    import numpy
    import pandas

    if kind == "text":
        # In pandas 2 texts are objects.
        dtype = "str" if int(pandas.__version__.split(".")[0]) >= 3 else object
        return pandas.Series(values, dtype=dtype)
    if kind not in _NUMBERS:
        return pandas.Series(values, dtype=object)
    array = numpy.frombuffer(values, dtype=kind)
    if missing is None:
        return array
    masked = pandas.arrays.BooleanArray if kind == "bool" else pandas.arrays.IntegerArray
    return masked(array.copy(), numpy.frombuffer(missing, dtype=bool).copy())
