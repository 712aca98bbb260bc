"""The base of plugins."""

from typing import TYPE_CHECKING, Any

from .flow import NFlow, NFPacket


class NFPlugin:
    """Sees the packets of flows. Every keyword becomes an attribute."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, **kwargs: Any) -> None:
        for name, value in kwargs.items():
            setattr(self, name, value)

    def on_init(self, packet: NFPacket, flow: NFlow) -> None:
        """A flow begins with this packet."""

    def on_update(self, packet: NFPacket, flow: NFlow) -> None:
        """The flow has a further packet, which its counters have counted."""

    def on_expire(self, flow: NFlow) -> None:
        """The flow has ended, and is given out next."""

    def cleanup(self) -> None:
        """Never called, as in NFStream."""


def _call(call):
    """Calls it below a frame of Python's."""
    return call()
