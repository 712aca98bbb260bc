# A network device without Ethernet, and a peer behind it that answers each datagram with itself. For
# each line on standard input one is sent.
import fcntl
import os
import socket
import struct
import subprocess
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000

tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"hollow", IFF_TUN | IFF_NO_PI))
subprocess.run(["ip", "addr", "add", "10.77.0.1/24", "dev", "hollow"], check=True)
subprocess.run(["ip", "link", "set", "hollow", "up"], check=True)
print("ready", flush=True)


def answer():
    while True:
        packet = os.read(tun, 2048)
        if packet[0] == 0x45 and packet[9] == socket.IPPROTO_UDP and packet[22:24] == b"\0\7":
            # Ends changed; the sums stay.
            ends = packet[16:20] + packet[12:16] + packet[22:24] + packet[20:22]
            os.write(tun, packet[:12] + ends + packet[24:])
            return


for line in sys.stdin:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"question", ("10.77.0.2", 7))
        answer()
        client.recv(64)
    print("answered", flush=True)
