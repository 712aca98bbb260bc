"""Are the plugins that come with flowmeter NFStream's?

Each argument is a capture. Each class of both libraries sees it; what it keeps of each flow is compared
after every call, with types, order and text. Prints how much was compared; fails at a difference.
"""

import enum
import os
import pickle
import sys
import threading

# Has NFStream's plugins imported, wherever that needs help.
import plugins as oracle
import nfstream
import nfstream.plugins.wfeatures

import flowmeter
import flowmeter.plugins.wfeatures
from flowmeter.plugins.dhcp import MsgType


class Library:
    """One of the two, by the names of its plugins."""

    def __init__(self, library):
        self.library = library
        self.plugin = library.NFPlugin
        for name in ("DHCP", "MDNS", "JA4", "SPLT", "FlowSlicer"):
            setattr(self, name, getattr(library.plugins, name))
        self.WFPlugin = library.plugins.wfeatures.WFPlugin

    def flows(self, capture, plugins, options):
        recorder = self.recorder(plugins)
        streamer = self.library.NFStreamer(
            source=capture, udps=[*plugins, recorder], n_dissections=0, n_meters=1, **options
        )
        return list(streamer)

    def recorder(self, plugins):
        """A plugin behind others, which writes down what they keep."""

        class Recorder(self.plugin):
            def write(self, flow):
                own = dict(vars(flow.udps))
                seen = own.pop("seen", [])
                seen.append((own_copy(own), [dict(vars(plugin)) for plugin in plugins], flow.expiration_id))
                flow.udps.seen = seen

            def on_init(self, packet, flow):
                self.write(flow)

            def on_update(self, packet, flow):
                self.write(flow)

            def on_expire(self, flow):
                self.write(flow)

        return Recorder()

    def labelled(self):
        """A subclass that knows more at the end."""

        class Labelled(self.DHCP):
            updates = 0

            def on_update(self, packet, flow):
                self.updates += 1
                super().on_update(packet, flow)

            def on_expire(self, flow):
                super().on_expire(flow)
                flow.udps.label = f"{flow.udps.dhcp_msg_type} {flow.udps.dhcp_12} {self.updates}"

        return Labelled()


def own_copy(values):
    """Lists as they are now."""
    return {name: list(value) if isinstance(value, list) else value for name, value in values.items()}


THEIRS, OURS = Library(nfstream), Library(flowmeter)


def is_same(theirs, ours, scale=0.0):
    """Fractions to 1e-6, relative to `scale` if that is more; all else exactly, types and text included."""
    if isinstance(theirs, enum.Enum):
        names = type(theirs).__name__ == type(ours).__name__ == "MsgType"
        return names and str(theirs) == str(ours) and theirs.value == ours.value
    if type(theirs) is not type(ours):
        return False
    if isinstance(theirs, float):
        if theirs == ours:
            return str(theirs) == str(ours)
        return abs(theirs - ours) <= 1e-6 * max(1.0, abs(theirs), scale)
    if isinstance(theirs, (list, tuple)):
        return len(theirs) == len(ours) and all(map(is_same, theirs, ours))
    if isinstance(theirs, dict):
        # Of σ of what is smooth only the last digits of what was added up are there.
        scales = {n: ours.get(n.replace("_sigma_", "_u_"), 0.0) for n in ours if n.endswith("_sigma_k_0")}
        return list(theirs) == list(ours) and all(
            is_same(theirs[name], ours[name], scales.get(name, 0.0)) for name in theirs
        )
    return theirs == ours and str(theirs) == str(ours)


def settings(name):
    """What makes the plugins for a library, and the streamer's options."""
    yield "JA4", lambda of: [of.JA4()], {}
    if name[1:2] != "_":
        return
    yield "WFPlugin", lambda of: [of.WFPlugin(active_timeout=1800, levels=3)], {}
    yield "SPLT", lambda of: [of.SPLT(sequence_length=3, accounting_mode=1)], {}
    yield "FlowSlicer", lambda of: [of.FlowSlicer(limit=2)], {}
    if "hang" not in name:
        yield "DHCP", lambda of: [of.DHCP()], {}
        yield "MDNS", lambda of: [of.MDNS(kept="as is")], {}
        yield "DHCP, SPLT", lambda of: [of.DHCP(), of.SPLT(sequence_length=2, accounting_mode=3)], {}
    if name.startswith("d_") and "hang" not in name:
        yield "DHCP, labelled", lambda of: [of.labelled()], {}
        yield "FlowSlicer, DHCP", lambda of: [of.FlowSlicer(limit=1), of.DHCP()], {"idle_timeout": 1}
    if name.startswith("m_") and "hang" not in name:
        yield "MDNS, FlowSlicer", lambda of: [of.MDNS(), of.FlowSlicer(limit=1)], {}
    if name.startswith("j_"):
        yield "JA4, quiet", lambda of: [of.JA4(False)], {"idle_timeout": 1}
        yield "JA4, FlowSlicer", lambda of: [of.JA4(), of.FlowSlicer(limit=4)], {}
        yield "WFPlugin, JA4", lambda of: [of.WFPlugin(active_timeout=5, levels=1), of.JA4()], {"active_timeout": 5}
    if name.startswith("s_"):
        for mode in range(5):
            yield f"SPLT {mode}", lambda of: [of.SPLT(sequence_length=4, accounting_mode=mode)], {}
        for limit in (1, 3):
            yield f"FlowSlicer {limit}", lambda of: [of.FlowSlicer(limit=limit)], {"idle_timeout": 1}
    if name.startswith("w_"):
        for levels in (1, 2, 5):
            options = {"active_timeout": 10}
            yield f"WFPlugin {levels}", lambda of: [of.WFPlugin(levels=levels, **options)], options


def compare(where, theirs, ours):
    """Gives how many values are the same."""
    assert len(theirs) == len(ours), f"{where}: {len(ours)} flows, not {len(theirs)}"
    compared = 0
    for one, other in zip(theirs, ours):
        assert one.keys() == other.keys(), f"{where}: {other.keys()}, not {one.keys()}"
        mine, yours = dict(vars(other.udps)), dict(vars(one.udps))
        steps, our_steps = yours.pop("seen"), mine.pop("seen")
        assert is_same(yours, mine), f"{where}: {mine}, not {yours}"
        assert len(steps) == len(our_steps), f"{where}: {len(our_steps)} calls, not {len(steps)}"
        for step, our_step in zip(steps, our_steps):
            assert is_same(step, our_step), f"{where}: {our_step}, not {step}"
        assert one.expiration_id == other.expiration_id, where
        kept = vars(pickle.loads(pickle.dumps(other)).udps)
        assert list(kept) == list(vars(other.udps)) and is_same(mine, {n: kept[n] for n in mine}), where
        compared += len(mine) * (1 + len(steps))
    return compared


def packages():
    """What is imported from where, and what objects are like."""
    assert issubclass(MsgType, enum.Enum) and [str(kind) for kind in MsgType][:2] == [
        "MsgType.DISCOVER",
        "MsgType.OFFER",
    ]
    for name in ("DHCP", "MDNS", "JA4", "SPLT", "FlowSlicer", "WFPlugin"):
        theirs, ours = getattr(THEIRS, name), getattr(OURS, name)
        assert theirs.__module__.replace("nfstream", "flowmeter") == ours.__module__, name
        assert issubclass(ours, flowmeter.NFPlugin), name
        made = ours() if name == "JA4" else ours(a=1)
        other = theirs() if name == "JA4" else theirs(a=1)
        assert vars(made) == vars(other) == vars(pickle.loads(pickle.dumps(made))), name
    assert hasattr(nfstream.plugins, "WFPlugin") == hasattr(flowmeter.plugins, "WFPlugin")
    lost = OURS.WFPlugin(active_timeout=1)
    try:
        lost.on_init(None, None)
    except AssertionError as error:
        assert "levels" in str(error)
    else:
        raise RuntimeError("WFPlugin was to say that it has no levels")


def main():
    threading.Thread(target=oracle.watch, daemon=True).start()
    packages()
    compared = runs = 0
    for capture in sys.argv[1:]:
        for title, make, options in settings(os.path.basename(capture)):
            theirs = THEIRS.flows(capture, make(THEIRS), options)
            ours = OURS.flows(capture, make(OURS), options)
            compared += compare(f"{capture} {title}", theirs, ours)
            runs += 1
    assert compared > 1_000, compared
    print(f"{runs} runs, {compared} values are the same")


if __name__ == "__main__":
    main()
