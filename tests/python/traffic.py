"""What does the capture of a user look like?

An hour of a small network, the same each time: browsing, names, a scan, downloads, heartbeats with
pauses around the timeouts, IPv6, a VLAN, a tunnel. nDPI 4.2 and NFStream's 5.0 name it alike.
"""

import random

import dpkt
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

BEGIN = 1_700_000_000
MTU = 1_448
HOSTS = ["www.example.org", "files.example.net", "news.example.com", "intranet.example"]


def mac(address):
    """An address of a real vendor's for servers, of nobody's for clients."""
    last = sum(map(ord, address)) % 256
    return f"00:1b:21:00:00:{last:02x}" if address.endswith(".80") else f"02:00:00:00:00:{last:02x}"


class Network:
    """Packets with their times."""

    def __init__(self):
        self.packets = []
        self.random = random.Random(13)
        self.port = 40_000

    def send(self, time, source, target, layers, around=None):
        """A frame from one host to another, padded as Ethernet does. Gives the time of the next."""
        network = IPv6 if ":" in source else IP
        ip = network(src=source, dst=target) / layers
        frame = Ether(src=mac(source), dst=mac(target)) / (ip if around is None else around(ip))
        self.packets.append((BEGIN + round(time, 6), bytes(frame).ljust(60, b"\0")))
        return time + self.random.choice((0.0004, 0.003, 0.02, 0.11))

    def next_port(self):
        self.port += 1
        return self.port

    def tcp(self, time, client, server, turns, ports, end="fin", around=None):
        """A connection: who says what, in turns. Gives the time after its end."""
        ends = ((client, server, *ports), (server, client, *ports[::-1]))
        sequence = [self.random.randrange(2**31), self.random.randrange(2**31)]

        def segment(time, side, flags, payload=b""):
            source, target, sport, dport = ends[side]
            window = 64_240 if side == 0 else 29_200
            header = TCP(sport=sport, dport=dport, flags=flags, window=window,
                         seq=sequence[side], ack=sequence[1 - side] if "A" in flags else 0)  # fmt: skip
            sequence[side] += len(payload) + ("S" in flags) + ("F" in flags)
            return self.send(time, source, target, header / Raw(payload), around)

        time = segment(segment(segment(time, 0, "SEC"), 1, "SAE"), 0, "A")
        for side, said, pause in turns:
            time += pause
            for begin in range(0, len(said), MTU):
                piece = said[begin : begin + MTU]
                time = segment(time, side, "PA" if begin + MTU >= len(said) else "A", piece)
            time = segment(time, 1 - side, "A")
        if end == "fin":
            time = segment(segment(segment(time, 0, "FA"), 1, "FA"), 0, "A")
        elif end == "rst":
            time = segment(time, 0, "RA")
        return time

    def web(self, time, client, server, end="fin", ports=None, around=None):
        """A browser's connection with a few pages."""
        host = self.random.choice(HOSTS)
        turns = []
        for page in range(self.random.randrange(1, 4)):
            size = self.random.choice((120, 900, 5_000, 20_000))
            request = f"GET /{page}.html HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Mozilla/5.0 (X11)\r\n\r\n"
            answer = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {size}\r\n\r\n"
            pause = self.random.choice((0, 0.2, 1.7, 6.5))
            turns += [(0, request.encode(), pause), (1, answer.encode() + b'<p>,"\n' * (size // 6), 0)]
        return self.tcp(time, client, server, turns, ports or (self.next_port(), 80), end, around)

    def name(self, time, client, server, host):
        """A question for an address, and its answer."""
        port, number = self.next_port(), self.random.randrange(65_536)
        question = DNSQR(qname=host)
        asked = UDP(sport=port, dport=53) / DNS(id=number, rd=1, qd=question)
        time = self.send(time, client, server, asked)
        answer = DNS(id=number, qr=1, qd=question, an=DNSRR(rrname=host, rdata="192.0.2.80"))
        return self.send(time, server, client, UDP(sport=53, dport=port) / answer)

    def ping(self, time, client, server, count):
        kinds = (ICMPv6EchoRequest, ICMPv6EchoReply) if ":" in client else (ICMP, lambda: ICMP(type=0))
        for _ in range(count):
            self.send(time, client, server, kinds[0]() / Raw(b"abcdefgh" * 4))
            time = 1 + self.send(time + 0.012, server, client, kinds[1]() / Raw(b"abcdefgh" * 4))

    def heartbeat(self, time, client, server, pause, count):
        """Datagrams with pauses."""
        port = self.next_port()
        for number in range(count):
            datagram = UDP(sport=port, dport=50_123) / Raw(b"beat" * (1 + number))
            self.send(time + number * pause, client, server, datagram)


def tunnel(packet):
    """The packet as a mobile network carries it."""
    outer = IP(src="198.51.100.1", dst="198.51.100.2") / UDP(sport=2_152, dport=2_152)
    packet = bytes(packet)
    return outer / Raw(b"\x30\xff" + len(packet).to_bytes(2, "big") + b"\0\0\0\7" + packet)


def hour():
    """The packets of an hour, by time."""
    network = Network()
    clients = [f"10.0.0.{n}" for n in range(11, 19)]
    for round_ in range(8):
        for place, client in enumerate(clients):
            time = round_ * 420 + place * 9.75
            server = ("203.0.113.80", "198.51.100.80", "192.0.2.80")[place % 3]
            time = network.name(time, client, "10.0.0.1", HOSTS[place % 4])
            end = ("fin", "rst", "fin", None)[(round_ + place) % 4]
            time = network.web(time, client, server, end)
            if round_ == 3:
                # The same ports once more, at once.
                network.web(time + 0.5, client, server, ports=(network.port, 80))
    for port in range(1, 31):
        asked = TCP(sport=50_000, dport=port, flags="S", window=1_024)
        time = network.send(100 + port / 50, "10.0.0.66", "10.0.0.12", asked)
        refused = TCP(sport=port, dport=50_000, flags="RA", ack=1)
        network.send(time, "10.0.0.12", "10.0.0.66", refused)
    network.heartbeat(5, "10.0.0.11", "10.0.0.2", 30, 90)  # Beyond the active timeout.
    network.heartbeat(7, "10.0.0.12", "10.0.0.2", 119.999, 8)
    network.heartbeat(9, "10.0.0.13", "10.0.0.2", 120, 8)
    network.heartbeat(11, "10.0.0.14", "10.0.0.2", 0.25, 300)
    for side in (1, 0):
        turns = [(side, bytes(range(256)) * 400, 0), (1 - side, b"done", 1)]
        network.tcp(600, "10.0.0.15", "10.0.0.3", turns, (network.next_port(), 50_200))
    for time in (30, 1_500):
        network.web(time, "2001:db8::11", "2001:db8::1:80")
        network.name(time, "2001:db8::11", "2001:db8::1", HOSTS[0])
        network.ping(time, "2001:db8::11", "2001:db8::1", 3)
        network.ping(time, "10.0.0.16", "10.0.0.1", 5)
        network.web(time, "10.0.0.17", "203.0.113.80", around=lambda ip: Dot1Q(vlan=12) / ip)
        network.web(time, "10.9.0.5", "203.0.113.80", around=tunnel)
    return sorted(network.packets)


def write(path):
    """Writes the hour as a capture."""
    with open(path, "wb") as file:
        writer = dpkt.pcap.Writer(file, snaplen=65_535)
        for time, frame in hour():
            writer.writepkt(frame, time)
