"""Writes the captures `j_*.pcap` of tests/captures/plugins: hellos of TLS that NFStream's JA4 is peculiar about.

The argument is the folder. What it writes is committed; a change here is followed by a run of it.
"""

import pathlib
import struct
import sys

CLIENT, SERVER = (bytes((10, 0, 0, 1)), 1000), (bytes((10, 0, 0, 2)), 443)
FIN, SYN, ACK, DATA = 0x01, 0x02, 0x10, 0x18


def vector(size, content):
    return len(content).to_bytes(size, "big") + content


def numbers(*values):
    return b"".join(value.to_bytes(2, "big") for value in values)


def extension(kind, content=b""):
    return numbers(kind) + vector(2, content)


def versions(*values):
    return extension(43, vector(1, numbers(*values)))


def signatures(*values):
    return extension(13, vector(2, numbers(*values)))


def protocols(*names):
    return extension(16, vector(2, b"".join(vector(1, name) for name in names)))


NAME = extension(0, vector(2, b"\0" + vector(2, b"example.org")))
USUAL = (NAME, extension(10, vector(2, numbers(29, 23))), signatures(0x0403, 0x0804)) + (
    protocols(b"h2", b"http/1.1"),
    versions(0x0304, 0x0303),
    extension(23),
)


def record(kind, body, version=0x0301):
    message = bytes((kind,)) + vector(3, body)
    return b"\x16" + numbers(version) + vector(2, message)


def client(*extensions, ciphers=(0x1301, 0xC02F), version=0x0303):
    body = numbers(version) + 32 * b"\x5a" + vector(1, b"session") + vector(2, numbers(*ciphers))
    return record(1, body + vector(1, b"\0") + vector(2, b"".join(extensions)))


def server(*extensions, cipher=0x1301, version=0x0303):
    body = numbers(version) + 32 * b"\xa5" + vector(1, b"session") + numbers(cipher) + b"\0"
    return record(2, body + vector(2, b"".join(extensions)), version=0x0303)


HELLO = client(*USUAL)
ANSWER = server(extension(43, numbers(0x0304)), extension(51, 8 * b"k"))


def segment(is_back, flags, payload=b"", padding=b"", ipv6=False, port=1000):
    (source, from_port), (target, to_port) = (SERVER, CLIENT) if is_back else (CLIENT, SERVER)
    ports = (from_port, port) if is_back else (port, to_port)
    tcp = struct.pack(">HHIIBBHHH", *ports, 1, 1, 0x50, flags, 1000, 0, 0) + payload
    if ipv6:
        head = struct.pack(">IHBB", 0x60000000, len(tcp), 6, 64) + 12 * b"\0" + source + 12 * b"\0" + target
        kind = 0x86DD
    else:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0) + source + target
        kind = 0x0800
    macs = b"\2\0\0\0\0\1\2\0\0\0\0\2"
    return (macs[6:] + macs[:6] if is_back else macs) + numbers(kind) + head + tcp + padding


def opening(**more):
    return [segment(0, SYN, **more), segment(1, SYN | ACK, **more), segment(0, ACK, **more)]


def flow(hello, *answers, **more):
    """A connection with a hello, and what is answered to it."""
    return opening(**more) + [
        segment(0, DATA, hello, **more),
        *(segment(1, DATA, answer, **more) for answer in answers),
        segment(0, FIN | ACK, **more),
    ]


def flows(*hellos):
    """A connection for each of these pairs of hellos."""
    all_of = [flow(hello, answer, port=1000 + n) for n, (hello, answer) in enumerate(hellos)]
    return [frame for frames in all_of for frame in frames]


def cut(hello, answer, cut_is_back):
    """A connection for each length that one of the two can be cut to."""
    frames = []
    for length in range(len(answer if cut_is_back else hello) + 1):
        more = {"port": 1000 + length}
        sent = (hello, answer[:length]) if cut_is_back else (hello[:length], answer)
        frames += [segment(0, SYN, **more), segment(0, DATA, sent[0], **more), segment(1, DATA, sent[1], **more)]
    return frames


CAPTURES = {
    "usual": flow(HELLO, ANSWER),
    "padded": opening(padding=6 * b"\0") + flow(HELLO, ANSWER, padding=b"\0", port=1001),
    "ip6": flow(HELLO, ANSWER, ipv6=True),
    "no_syn": flow(HELLO, ANSWER)[1:],
    "no_handshake": [flow(HELLO, ANSWER)[n] for n in (0, 3, 4)],
    "not_at_once": opening() + [segment(0, DATA, b"STARTTLS\r\n"), *flow(HELLO, ANSWER)[3:]],
    "empty_first": opening() + [segment(0, ACK), *flow(HELLO, ANSWER)[3:]],
    "with_syn": [segment(0, SYN, HELLO), segment(1, SYN | ACK, ANSWER), *flow(HELLO, ANSWER)[2:]],
    "with_syn_ack": [segment(0, SYN), segment(1, SYN | ACK, HELLO), *flow(HELLO, ANSWER)[2:]],
    "answer_first": opening() + [segment(1, DATA, ANSWER), segment(0, DATA, HELLO)],
    "from_the_server": opening() + [segment(1, DATA, HELLO), segment(0, DATA, ANSWER)],
    "two_hellos": opening() + [segment(0, DATA, client(NAME)), *flow(HELLO, ANSWER)[3:]],
    "two_segments": opening()
    + [segment(0, DATA, HELLO[:60]), segment(0, DATA, HELLO[60:]), segment(1, DATA, ANSWER)],
    "between": flow(HELLO, b"\x16\x03\x01\0\1\3", b"other", ANSWER),
    "broken_answer": flow(HELLO, server(extension(43)), ANSWER),
    "broken_answer_early": [segment(0, SYN), segment(0, DATA, HELLO)]
    + [segment(1, DATA, server(extension(43))), segment(0, DATA, client(NAME)), segment(1, DATA, ANSWER)],
    "cut_hello": cut(client(*USUAL[2:]), ANSWER, cut_is_back=False),
    "cut_answer": cut(client(NAME), server(*USUAL[2:4], extension(43, numbers(0x0304))), cut_is_back=True),
    "versions": flows(
        *((client(version=version), server(version=version)) for version in (0x300, 0x301, 0x304, 0x3FF, 0x200)),
        *((client(versions(version)), server(extension(43, numbers(version)))) for version in (2, 0x300, 0xFEFD)),
        (client(versions(0x303, 0x7F1C, 0xDADA)), server(extension(43, b"\3\4\5\6\7\x08\x09"))),
        (client(versions(0xDADA)), ANSWER),
        (client(versions()), ANSWER),
    ),
    "protocols": flows(
        *(
            (client(protocols(name, b"h2")), server(protocols(name)))
            for name in (b"h2", b"x", b"", b"\x0a\x0a", b"a\xcd", "äö".encode(), b"-_", b"\0\0")
        ),
        (client(protocols()), server(protocols())),
        (client(extension(16)), server(extension(16))),
        (client(extension(16, b"\0\3\x09h2")), server(extension(16, b"\0\x09\2h2"))),
        (client(protocols(b"h2"), protocols(b"h3")), server(protocols(b"h2"), protocols(b"h3"))),
    ),
    "grease": flows(
        (
            client(extension(0x0A0A), signatures(0xDADA, 0x403), extension(0x0A1A), ciphers=(0xFAFA, 5, 5)),
            server(extension(0x0A0A), extension(0x0A1A), cipher=0x0A0A),
        ),
        (client(signatures(0xDADA), ciphers=(0xFAFA,)), ANSWER),
        (client(signatures()), ANSWER),
        (client(extension(13)), ANSWER),
        (client(extension(13, b"\0\4\4\3")), ANSWER),
        (client(ciphers=()), ANSWER),
    ),
    "many": flows(
        (
            client(*(extension(100 + n) for n in range(120)), ciphers=range(300, 450)),
            server(*(extension(300 - n) for n in range(120))),
        ),
        (client(extension(5), NAME, extension(5)), server(extension(5), extension(23), extension(5))),
    ),
}


def capture(frames):
    """A capture of Ethernet frames, one every ms."""
    out = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
    for n, frame in enumerate(frames):
        head = struct.pack("<IIII", 1_700_000_000 + n // 1000, n % 1000 * 1000, len(frame), len(frame))
        out += head + frame
    return out


def main():
    folder = pathlib.Path(sys.argv[1])
    for name, frames in CAPTURES.items():
        (folder / f"j_{name}.pcap").write_bytes(capture(frames))


if __name__ == "__main__":
    main()
