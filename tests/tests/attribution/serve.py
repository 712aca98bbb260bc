# Worker processes on one port. Arguments: address, port, workers, log, and which sockets each has of
# its own: "none", "udp" or "all"; else they share. Who served which peer goes to the log.
import contextlib, ctypes, os, selectors, socket, sys

address, port, workers, log = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
own, own_listener = sys.argv[5] != 'none', sys.argv[5] == 'all'
family = socket.AF_INET6 if ':' in address else socket.AF_INET
log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def listening():
    return socket.create_server(
        (address, port), family=family, backlog=1024, reuse_port=own_listener)


def told(protocol, peer):
    os.write(log, f'{protocol} {peer[1]} {os.getpid()} {name}\n'.encode())


def bound():
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(own))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    s.bind((address, port))
    s.setblocking(False)
    return s


def work():
    datagrams = bound() if own else shared
    listener = listening() if own_listener else shared_listener
    listener.setblocking(False)
    ready = selectors.DefaultSelector()
    ready.register(listener, selectors.EVENT_READ)
    ready.register(datagrams, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.fileobj is datagrams:
                with contextlib.suppress(BlockingIOError):
                    _, peer = datagrams.recvfrom(100)
                    told(17, peer)
                continue
            try:
                served, peer = listener.accept()
            except BlockingIOError:
                continue
            served.setblocking(True)
            told(6, peer)
            with served, contextlib.suppress(ConnectionError):
                while bytes := served.recv(100):
                    served.sendall(bytes)


shared = None if own else bound()
shared_listener = None if own_listener else listening()
for number in range(workers):
    if os.fork() == 0:
        name = f'serve-{number}'
        ctypes.CDLL(None).prctl(15, name.encode())
        work()
os.wait()
