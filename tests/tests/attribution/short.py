# Processes that each do one thing and are gone.
# Arguments: address, port, TCP connections, datagrams, how many processes at once.
# Prints protocol, local port, pid and name of each.
import ctypes, os, socket, sys

address, port = sys.argv[1], int(sys.argv[2])
connections, datagrams, at_once = map(int, sys.argv[3:6])
family = socket.AF_INET6 if ':' in address else socket.AF_INET
libc = ctypes.CDLL(None)


def connect(name):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.connect((address, port))
        local = s.getsockname()[1]
        s.sendall(b'x')
        s.recv(1)
    os.write(1, f'6 {local} {os.getpid()} {name}\n'.encode())


def send(name):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.sendto(b'x', (address, port))
        local = s.getsockname()[1]
    os.write(1, f'17 {local} {os.getpid()} {name}\n'.encode())


running = 0
for number in range(connections + datagrams):
    act = connect if number < connections else send
    if os.fork() == 0:
        name = f'short-{number}'
        libc.prctl(15, name.encode())
        try:
            act(name)
        finally:
            os._exit(0)
    running += 1
    if running >= at_once:
        os.wait()
        running -= 1
while running:
    os.wait()
    running -= 1
