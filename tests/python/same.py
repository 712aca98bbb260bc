"""Is flowmeter for Python the same as NFStream?

Each argument is a capture. Every flow of it is compared, attribute by attribute, in both libraries'
order, then every call that a plugin gets. Prints how much was compared; fails at a difference.
"""

import sys

import nfstream

import flowmeter

RUNS = (
    {},
    {"statistical_analysis": True, "splt_analysis": 5},
    {"decode_tunnels": False, "accounting_mode": 2, "idle_timeout": 1},
    {"active_timeout": 5, "accounting_mode": 1},
)


def is_same(theirs, ours):
    """Floats to 1e-6, all else exactly, types included."""
    if isinstance(theirs, float):
        return isinstance(ours, float) and abs(theirs - ours) <= 1e-6 * max(1, abs(theirs))
    if isinstance(theirs, (list, tuple)):
        return len(theirs) == len(ours) and all(map(is_same, theirs, ours))
    return type(theirs) is type(ours) and theirs == ours


def recorder(base, state):
    """A plugin of a library that writes down what it is called with, and cuts flows at 9 packets."""

    class Recorder(base):
        calls = 0

        def write(self, what, packet, flow):
            self.calls += 1
            packet = None if packet is None else tuple(packet)
            flow.udps.seen.append((self.calls, what, packet, state(flow)))

        def on_init(self, packet, flow):
            flow.udps.seen = []
            self.write("init", packet, flow)

        def on_update(self, packet, flow):
            self.write("update", packet, flow)
            if len(flow.udps.seen) == 9:
                flow.expiration_id = -1

        def on_expire(self, flow):
            self.write("expire", None, flow)

    return Recorder()


def state(flow):
    """What a flow has while it is metered."""
    names = [n for n in flow.keys() if n not in ("id", "_C") and not n.startswith("udps")]
    return [(name, getattr(flow, name)) for name in names]


def flows(library, capture, options, plugin=None):
    streamer = library.NFStreamer(
        source=capture, n_dissections=0, n_meters=1, udps=plugin, **options
    )
    return list(streamer)


def main():
    compared = calls = 0
    for capture in sys.argv[1:]:
        for options in RUNS:
            where = f"{capture} {options}"
            theirs = flows(nfstream, capture, options)
            ours = flows(flowmeter, capture, options)
            assert len(theirs) == len(ours), f"{where}: {len(ours)} flows, not {len(theirs)}"
            for one, other in zip(theirs, ours):
                assert one.keys() == other.keys(), where
                for name, value, our_value in zip(one.keys(), one.values(), other.values()):
                    assert is_same(value, our_value), f"{where}: {name} {our_value!r}, not {value!r}"
                    compared += 1
                if not options:
                    # Without fractions the texts are the same, too.
                    assert str(one) == str(other), where
            theirs = flows(nfstream, capture, options, recorder(nfstream.NFPlugin, state))
            ours = flows(flowmeter, capture, options, recorder(flowmeter.NFPlugin, state))
            assert len(theirs) == len(ours), f"{where}, cut: {len(ours)} flows, not {len(theirs)}"
            for one, other in zip(theirs, ours):
                assert len(one.udps.seen) == len(other.udps.seen), where
                for call, our_call in zip(one.udps.seen, other.udps.seen):
                    assert is_same(call, our_call), f"{where}: {our_call}, not {call}"
                    calls += 1
    print(f"{compared} values and {calls} calls are the same")


if __name__ == "__main__":
    main()
