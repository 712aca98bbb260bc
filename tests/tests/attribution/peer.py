# The peer of hands.py. Takes what comes to port 7 by TCP, MPTCP and UDP and to a raw socket, and
# calls whom it is asked to at port 6: address and port to call, address to call from, and the
# protocol of the stream, or -1 for a datagram. A byte says that the call is under way.
import socket, threading


def take(s):
    try:
        while s.recv(4096):
            pass
    except OSError:
        pass
    s.close()


def call(s):
    address, port, source, protocol = s.makefile().readline().split(' ')
    protocol = int(protocol)
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if protocol < 0 else socket.SOCK_STREAM
    with socket.socket(family, kind, max(protocol, 0)) as caller:
        caller.settimeout(30)
        if family == socket.AF_INET6:
            caller.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND: no interface has it
        caller.bind((source, 0))
        caller.connect((address, int(port)))
        caller.sendall(b'x')
        s.sendall(b'.')
        caller.recv(1)
    s.close()


def serve(s, work):
    while True:
        client, _ = s.accept()
        threading.Thread(target=work, args=(client,), daemon=True).start()


def listener(port, protocol):
    s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, protocol)
    s.bind(('::', port))
    s.listen(64)
    return s


datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
datagrams.bind(('::', 7))
raw = [socket.socket(family, socket.SOCK_RAW, 253) for family in (socket.AF_INET, socket.AF_INET6)]
try:
    takes = listener(7, 262)
except OSError:
    takes = listener(7, 0)
threading.Thread(target=serve, args=(takes, take), daemon=True).start()
serve(listener(6, 0), call)
