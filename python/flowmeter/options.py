"""What may be asked of a streamer."""

import glob
import importlib.util
import operator
import os
from collections.abc import Iterable, Mapping

from . import _engine
from .plugin import NFPlugin

#: What an integer parameter may be, with the text that its error says.
RANGES = {
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

BOOLEANS = ("decode_tunnels", "promiscuous_mode", "statistical_analysis", "raise_on_damage")

#: The units of ``time_unit``, in ns.
TICKS = {"ms": 1_000_000, "us": 1_000, "ns": 1}

#: What else may be one of a few texts.
CHOICES = {
    "time_unit": tuple(TICKS),
    "compat": ("nfstream", None),
    "direction": ("both", "ingress", "egress"),
}

#: Packets in the lists of an interface's flows.
MOST_LIVE_SPLT = 255

#: Packets in sequences by default, and at most.
SEQUENCE, MOST_SEQUENCE = 65_535, 2**24


def _range(name):
    least, most, unit = RANGES[name]

    def check(value):
        number = _index(value)
        if number is None or not least <= number <= most:
            raise ValueError(
                f"{name} must be an integer from {least} to {most} ({unit}), not {value!r}."
            )
        return number

    return check


def _index(value):
    """The integer that it is, of Python's or numpy's; None if it is none."""
    try:
        return operator.index(value)
    except TypeError:
        return None


def _boolean(name):
    def check(value):
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False, not {value!r}.")
        return value

    return check


def _choice(name):
    def check(value):
        if value not in CHOICES[name]:
            choices = ", ".join(map(repr, CHOICES[name]))
            raise ValueError(f"{name} must be one of {choices}, not {value!r}.")
        return value

    return check


def _filter(value):
    if value is not None and not isinstance(value, str):
        raise ValueError(f"bpf_filter must be a string or None, not {value!r}.")
    return value


def _udps(value):
    if value is None:
        return ()
    if isinstance(value, NFPlugin):
        return (value,)
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        value = value if hasattr(value, "__len__") else tuple(value)
        if all(isinstance(plugin, NFPlugin) for plugin in value):
            return value
    raise ValueError("udps must be an NFPlugin, or a sequence of NFPlugins.")


def _sequences(value):
    if isinstance(value, bool):
        return SEQUENCE if value else 0
    number = _index(value)
    if number is None or not 0 <= number <= MOST_SEQUENCE:
        raise ValueError(
            f"sequences must be True, False or an integer from 0 to {MOST_SEQUENCE} (packets), "
            f"not {value!r}."
        )
    return number


def _group(value):
    known = _engine.groups()
    groups = (value,) if isinstance(value, str) else value
    if not isinstance(groups, Iterable):
        raise ValueError(f"group must be a name or names of groups, not {value!r}.")
    groups = tuple(groups)
    for group in groups:
        if group not in known:
            raise ValueError(f"group must be among {', '.join(known)}, not {group!r}.")
    return groups


def _model(value):
    """Files, each with the columns that it takes."""
    if value is None:
        return []
    if isinstance(value, (str, os.PathLike)):
        value = [value]
    pairs = value.items() if isinstance(value, Mapping) else value
    models = []
    for pair in pairs:
        path, names = pair if isinstance(pair, tuple) else (pair, ())
        if not isinstance(path, (str, os.PathLike)) or not os.path.isfile(path):
            raise ValueError(f"model must name existing ONNX files, not {path!r}.")
        names = [names] if isinstance(names, str) else list(names)
        models.append((os.fspath(path), names))
    return models


def _library(value):
    if value is not None and not isinstance(value, (str, os.PathLike)):
        raise ValueError(f"onnxruntime must be the path of a library or None, not {value!r}.")
    return value


def _onnxruntime(streamer):
    """The library that runs models: that of the package onnxruntime, if it is installed."""
    if not streamer.model:
        return None
    # Else some of its builds report to their maker as soon as they are loaded.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    if streamer.onnxruntime is not None:
        return os.fspath(streamer.onnxruntime)
    # It is not imported, as it would bring its own into the process.
    found = importlib.util.find_spec("onnxruntime")
    if found is None or found.origin is None:
        return None
    libraries = glob.glob(os.path.join(os.path.dirname(found.origin), "capi", "libonnxruntime.so.*"))
    return libraries[0] if libraries else None


def _source(value):
    if isinstance(value, tuple):
        value = list(value)
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


#: How each parameter is checked.
CHECKS = {
    "source": _source,
    "bpf_filter": _filter,
    "udps": _udps,
    "sequences": _sequences,
    "group": _group,
    "model": _model,
    "onnxruntime": _library,
    **{name: _range(name) for name in RANGES},
    **{name: _boolean(name) for name in BOOLEANS},
    **{name: _choice(name) for name in CHOICES},
}


def checked(streamer_class):
    """Gives a class parameters that are checked whenever they are set."""
    for name, check in CHECKS.items():
        setattr(streamer_class, name, _parameter(name, check))
    return streamer_class


def _parameter(name, check):
    place = f"_{name}"

    def get(self):
        return getattr(self, place)

    def set_(self, value):
        setattr(self, place, check(value))

    return property(get, set_)


def is_live(streamer):
    """Whether its source is an interface."""
    return isinstance(streamer.source, str) and not os.path.isfile(streamer.source)


def of(streamer):
    """What the engine is to do for a streamer; an error for what does not go together."""
    live = is_live(streamer)
    _check_together(streamer, live)
    files = [] if live else streamer.source
    sequences = streamer.sequences
    return {
        "files": [files] if isinstance(files, str) else files,
        "interface": streamer.source if live else None,
        "decode_tunnels": streamer.decode_tunnels,
        "bpf_filter": streamer.bpf_filter,
        "promiscuous_mode": streamer.promiscuous_mode,
        "snapshot_length": min(streamer.snapshot_length, 65535),
        "idle_timeout": streamer.idle_timeout,
        "active_timeout": streamer.active_timeout,
        "accounting_mode": streamer.accounting_mode,
        "n_dissections": streamer.n_dissections,
        "statistical_analysis": streamer.statistical_analysis,
        "splt_analysis": streamer.splt_analysis,
        "n_meters": streamer.n_meters,
        "max_nflows": streamer.max_nflows,
        "system_visibility_mode": live and bool(streamer.system_visibility_mode),
        "system_visibility_poll_ms": streamer.system_visibility_poll_ms,
        "tick_ns": TICKS[streamer.time_unit],
        "sequences": min(sequences, MOST_LIVE_SPLT) if live and sequences == SEQUENCE else sequences,
        "group": list(streamer.group),
        "as_nfstream": streamer.compat == "nfstream",
        "direction": streamer.direction,
        "raise_on_damage": streamer.raise_on_damage,
        "models": streamer.model,
        "onnxruntime": _onnxruntime(streamer),
    }


def _check_together(streamer, live):
    if live and streamer.bpf_filter is not None:
        raise ValueError("bpf_filter is for captures; the meter of an interface has none.")
    for name in ("splt_analysis", "sequences"):
        value = getattr(streamer, name)
        if live and value > MOST_LIVE_SPLT and (name, value) != ("sequences", SEQUENCE):
            raise ValueError(
                f"{name} is at most {MOST_LIVE_SPLT} for an interface: the kernel keeps the lists."
            )
    if streamer.n_dissections == 0:
        for group in ("fingerprints", "l7-extended"):
            if group in streamer.group:
                raise ValueError(f"group {group!r} needs n_dissections of at least 1.")
    if "owners" in streamer.group and not (live and streamer.system_visibility_mode):
        raise ValueError("group 'owners' needs an interface, and system_visibility_mode=1.")
    if streamer.bpf_filter is not None:
        error = _engine.filter_error(streamer.bpf_filter)
        if error is not None:
            raise ValueError(f"bpf_filter {streamer.bpf_filter!r} cannot be compiled: {error}")
