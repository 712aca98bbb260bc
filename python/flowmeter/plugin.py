"""The base of plugins."""


class NFPlugin:
    """Sees the packets of flows. Every keyword becomes an attribute."""

    def __init__(self, **kwargs):
        for name, value in kwargs.items():
            setattr(self, name, value)

    def on_init(self, packet, flow):
        """A flow begins with this packet."""

    def on_update(self, packet, flow):
        """The flow has a further packet, which its counters have counted."""

    def on_expire(self, flow):
        """The flow has ended, and is given out next."""

    def cleanup(self):
        """Never called, as in NFStream."""


def _call(call):
    """Calls it below a frame of Python's."""
    return call()
