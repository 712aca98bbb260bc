# Sockets of processes that have moved on to another network namespace. Argument: its name; the
# addresses are 10.9.0.1 here and 10.9.0.2 there. Prints port, pid and name of whom the flow from
# there to that port here belongs to, and for `stranger` the one from here to there.
import ctypes, os, socket, sys

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
here = os.open('/proc/self/ns/net', os.O_RDONLY)
there = os.open(f'/var/run/netns/{sys.argv[1]}', os.O_RDONLY)
HERE, THERE = '10.9.0.1', '10.9.0.2'


def enter(namespace):
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), 'setns')


def datagrams():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(10)
    return s


def in_child(name, work):
    """Runs it until it says that it is ready, and on to its end when that is waited for."""
    ready, say = os.pipe()
    child = os.fork()
    if child == 0:
        libc.prctl(15, name.encode())
        try:
            work(lambda: os.write(say, b'x'))
            os._exit(0)
        finally:
            os._exit(1)
    os.close(say)
    os.read(ready, 1)
    return child


def tell(port):
    with open('/proc/self/comm') as name:
        os.write(1, f'{port} {os.getpid()} {name.read()}'.encode())


def receive(made_in, bound_in, address, port):
    def work(ready):
        enter(made_in)
        s = datagrams()
        enter(bound_in)
        s.bind((address, port))
        ready()
        s.recv(1)
        tell(port)
    return work


def connect(ready):
    s = socket.socket()
    enter(there)
    s.connect((THERE, 7))
    s.sendall(b'x')
    s.recv(1)
    tell(s.getsockname()[1])


def send(made_in, address, port):
    enter(made_in)
    with datagrams() as s:
        s.sendto(b'x', (address, port))
    enter(here)


children = [
    in_child('mover', receive(here, there, HERE, 5000)),
    in_child('stranger', receive(there, here, '0.0.0.0', 5001)),
    in_child('native', receive(here, here, '0.0.0.0', 5001)),
    in_child('connector', connect),
]
send(there, HERE, 5000)
send(there, HERE, 5001)
send(here, THERE, 5001)
failed = [child for child in children if os.waitpid(child, 0)[1] != 0]
sys.exit(f'{failed} failed' if failed else 0)
