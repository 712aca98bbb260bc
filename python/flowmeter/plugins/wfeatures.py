"""How does a flow's traffic vary, on which scale of time?"""

from numpy import float64

from .._engine import wavelet_features
from ..plugin import NFPlugin


class WFPlugin(NFPlugin):
    """Features of the stationary Haar transform of a flow's IP bytes over time.

    Each direction is a series of 2**``levels`` sums over ``active_timeout`` seconds, the flow's first
    packet left out. Packets later than that are left out too, so set it to the streamer's.
    """

    def on_init(self, packet, flow):
        for name in ("active_timeout", "levels"):
            if not hasattr(self, name):
                raise AssertionError(f"WFPlugin needs {name}: WFPlugin(active_timeout=1800, levels=5)")
        self.nbins = 2**self.levels
        self.bin_size = self.active_timeout / self.nbins * 1000
        flow.udps.forward = [0.0] * self.nbins
        flow.udps.backward = [0.0] * self.nbins
        flow.udps.first_packet_timestamp = packet.time

    def on_update(self, packet, flow):
        udps = flow.udps
        since = packet.time - udps.first_packet_timestamp
        place = round((since - since % self.bin_size) / self.bin_size)
        series = udps.backward if packet.direction else udps.forward
        if place < len(series):
            series[place] += packet.ip_size

    def on_expire(self, flow):
        udps = flow.udps
        for side, series in (("f", udps.forward), ("b", udps.backward)):
            features = iter(wavelet_features(series, self.levels))
            for feature in ("p", "u", "sigma", "S"):
                for row in range(self.levels + 1):
                    setattr(udps, f"{side}_{feature}_k_{row}", float64(next(features)))
        del udps.forward, udps.backward, udps.first_packet_timestamp
