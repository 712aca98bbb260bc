"""How do flows that have been through Python become CSV?

Flows may differ in what plugins keep of them: the header is the union, and what a flow has not is empty.
"""

import contextlib
import csv
import io
import json
import os
import warnings
from array import array

from . import _engine

#: Columns whose lists of texts are written as JSON has them.
_TEXT_LISTS = frozenset(
    name for name, _, kind, _, _ in _engine.described() if kind == "list of texts"
)

_END = b"\r\n"


class Rows:
    """Rows below a header."""

    def __init__(self, out, anonymizer, columns, seen):
        self._out = out
        self._anonymizer = anonymizer
        self._chosen = columns is not None
        #: The header.
        self.names = list(columns or ())
        #: The names that flows have had.
        self._seen = seen
        self._known = set(self.names)
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text, lineterminator="\r\n")
        self._lengths = array("Q")
        #: From which row on there are so many columns.
        self._widths = []
        self._last = None
        self._has_text_lists = False

    def add(self, flow):
        """Writes a flow."""
        names, values = flow.keys(), flow.values()
        if names != self._last:
            self._see(names)
        if self._chosen or names != self.names:
            own = dict(zip(names, values))
            names, values = self.names, [own.get(name) for name in self.names]
        if self._has_text_lists:
            values = [_listed(name, value) for name, value in zip(names, values)]
        self._write(self._anonymizer.values(names, values))

    def _see(self, names):
        self._last = names
        self._seen.update(names)
        self._has_text_lists = not _TEXT_LISTS.isdisjoint(names)
        if not self._chosen:
            new = [name for name in names if name not in self._known]
            self.names.extend(new)
            self._known.update(new)
        if not self._lengths:
            self._write(self.names)
            self._anonymizer.check(names)
        if not self._widths or self._widths[-1][1] != len(self.names):
            self._widths.append((len(self._lengths), len(self.names)))

    def _write(self, values):
        row = _line(self._writer, self._text, values)
        self._out.write(row)
        self._lengths.append(len(row))

    @property
    def is_ragged(self):
        """Whether the header has fewer columns than rows behind it."""
        return len(self._widths) > 1

    def copy_even(self, source, target):
        """Copies the rows that `source` has to `target`, all with as many columns as the last."""
        target.write(_line(self._writer, self._text, self.names))
        source.seek(self._lengths[0])
        widths = iter(self._widths[1:] + [(len(self._lengths), 0)])
        missing = len(self.names) - self._widths[0][1]
        change, width = next(widths)
        for row in range(1, len(self._lengths)):
            if row == change:
                missing = len(self.names) - width
                change, width = next(widths)
            line = source.read(self._lengths[row])
            target.write(line[: -len(_END)] + b"," * missing + _END if missing else line)


def _listed(name, value):
    if name in _TEXT_LISTS and isinstance(value, list):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return value


def _line(writer, text, values):
    writer.writerow(values)
    line = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return line


def in_memory(streamer, anonymizer, columns):
    """The flows as CSV in memory, and how many there are."""
    out = io.BytesIO()
    seen, flows = set(), 0
    rows = Rows(out, anonymizer, columns, seen)
    for flow in streamer:
        rows.add(flow)
        flows += 1
    check_seen(seen, columns, flows)
    if rows.is_ragged:
        even = io.BytesIO()
        rows.copy_even(out, even)
        out = even
    return out.getvalue(), flows


def check_seen(seen, columns, flows):
    """A column that is asked for and that no flow has is an error."""
    for name in columns or ():
        if flows and name not in seen:
            raise ValueError(f"columns has {name!r}, which no flow has.")


class _File:
    """A file with flows."""

    def __init__(self, path, anonymizer, columns, seen):
        self._path = path
        self._file = open(path, "wb")
        self.rows = Rows(self._file, anonymizer, columns, seen)
        self.flows = 0

    def add(self, flow):
        self.rows.add(flow)
        self.flows += 1

    def close(self):
        self._file.close()
        # What is no file is read while it is written.
        if self.rows.is_ragged and os.path.isfile(self._path):
            even = f"{self._path}.even"
            try:
                with open(self._path, "rb") as source, open(even, "wb") as target:
                    self.rows.copy_even(source, target)
                os.replace(even, self._path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.remove(even)
                raise


def to_files(streamer, path, anonymizer, columns, flows_per_file, rotate_files):
    """Writes the flows to a file, or to one for each ``flows_per_file`` of them; gives their number."""
    file, files, flows, seen = None, 0, 0, set()
    try:
        for flow in streamer:
            if file is not None and flows_per_file and file.flows == flows_per_file:
                file.close()
                file = None
            if file is None:
                number = files % rotate_files if rotate_files else files
                name = path.replace("csv", f"{number}.csv") if flows_per_file else path
                file = _File(name, anonymizer, columns, seen)
                files += 1
            file.add(flow)
            flows += 1
    finally:
        if file is not None:
            file.close()
    check_seen(seen, columns, flows)
    return flows


class Anonymizer:
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
