"""What are the first packets of a flow like?"""

from ..plugin import NFPlugin

_SIZES = ("raw_size", "ip_size", "transport_size", "payload_size")


class SPLT(NFPlugin):
    """Direction, size and inter-arrival time of the first ``sequence_length`` packets.

    ``accounting_mode`` says what a size is: 0 the frame, 1 the IP packet, 2 the transport segment, else
    the payload. The lists end with −1 where there are no packets.
    """

    def on_init(self, packet, flow):
        flow.udps.splt_direction = [-1] * self.sequence_length
        flow.udps.splt_ps = [-1] * self.sequence_length
        flow.udps.splt_piat_ms = [-1] * self.sequence_length
        self._write(packet, flow, 0)

    def on_update(self, packet, flow):
        place = flow.bidirectional_packets - 1
        if place < self.sequence_length:
            self._write(packet, flow, place)

    def _write(self, packet, flow, place):
        mode = self.accounting_mode
        size = _SIZES[mode] if mode in (0, 1, 2) else _SIZES[3]
        flow.udps.splt_direction[place] = packet.direction
        flow.udps.splt_ps[place] = getattr(packet, size)
        flow.udps.splt_piat_ms[place] = packet.delta_time
