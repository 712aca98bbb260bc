"""When is a flow long enough?"""

from ..plugin import NFPlugin


class FlowSlicer(NFPlugin):
    """Ends a flow with its packet number ``limit``; the next packet begins a new flow."""

    def on_init(self, packet, flow):
        if self.limit == 1:
            flow.expiration_id = -1

    def on_update(self, packet, flow):
        if flow.bidirectional_packets == self.limit:
            flow.expiration_id = -1
