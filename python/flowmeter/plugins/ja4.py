"""Which TLS client speaks to which server?"""

from .._engine import ja4_client, ja4_server
from ..plugin import NFPlugin


class JA4(NFPlugin):
    """JA4 and JA4S of flows over TCP and IPv4 whose first packet opens the connection, else None.

    A hello is read from one packet. ``throw_warns`` has no effect, as in NFStream.
    """

    def __init__(self, throw_warns=True):
        super().__init__(throw_warns=throw_warns)

    def on_init(self, packet, flow):
        is_opening = bool(packet.syn and not packet.ack)
        udps = flow.udps
        udps._start_time = packet.time
        _forget(udps)
        udps._ja4_eligible = is_opening
        udps.tcp_syn_flag = is_opening
        udps.tcp_syn_synack_flag = False
        udps.tcp_synack_ack_flag = False

    def on_update(self, packet, flow):
        udps = flow.udps
        if not udps._ja4_eligible:
            return
        if udps.ja4 is None:
            hello = ja4_client(packet.ip_packet)
            if hello is not None:
                udps.ja4, udps._client_random = hello
        else:
            self._look_for_server(packet, udps)
        if udps.ja4s is not None:
            udps._ja4_eligible = False
        elif udps.tcp_synack_ack_flag:
            udps._ja4_eligible = udps.ja4 is not None
        elif packet.ack and packet.syn:
            udps.tcp_syn_synack_flag = True
        elif packet.ack and udps.tcp_syn_synack_flag:
            udps.tcp_synack_ack_flag = True

    def _look_for_server(self, packet, udps):
        try:
            hello = ja4_server(packet.ip_packet)
        except ValueError:
            _forget(udps)
            return
        if hello is not None:
            udps.ja4s, udps._server_random = hello

    def on_expire(self, flow):
        udps = flow.udps
        del udps._start_time, udps._client_random, udps._server_random, udps._ja4_eligible
        del udps.tcp_syn_flag, udps.tcp_syn_synack_flag, udps.tcp_synack_ack_flag


def _forget(udps):
    udps.ja4 = udps.ja4s = udps._client_random = udps._server_random = None
