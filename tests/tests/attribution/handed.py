# Sockets that change hands. Argument: address. Prints port, pid and name of the process that has
# to be found, and what happened.
import ctypes, os, socket, sys

address = sys.argv[1]
libc = ctypes.CDLL(None)


def rename(name):
    libc.prctl(15, name.encode())


def tell(what, s, name):
    os.write(1, f'{what} {s.getsockname()[1]} {os.getpid()} {name}\n'.encode())


def in_child(work):
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


# Made here, connected here, used by a child only.
rename('maker')
inherited = socket.create_connection((address, 7))


def use():
    rename('heir')
    inherited.sendall(b'x')
    inherited.recv(1)
    tell('inherited', inherited, 'heir')


in_child(use)
inherited.close()

# Passed over a Unix socket.
near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def receive():
    rename('receiver')
    _, [fd], _, _ = socket.recv_fds(far, 1, 1)
    s = socket.socket(fileno=fd)
    s.sendall(b'x')
    s.recv(1)
    tell('passed', s, 'receiver')


passed = socket.create_connection((address, 7))
socket.send_fds(near, [b'x'], [passed.fileno()])
passed.close()
in_child(receive)
near.close()

# Renamed between socket() and its first use.
s = socket.socket()
rename('renamed')
s.connect((address, 7))
s.sendall(b'x')
s.recv(1)
tell('renamed', s, 'renamed')
s.close()

# Nothing sent.
rename('silent')
s = socket.create_connection((address, 7))
tell('silent', s, 'silent')
s.close()

# Refused.
s = socket.socket()
s.bind(('', 0))
tell('refused', s, 'silent')
try:
    s.connect((address, 1))
except ConnectionRefusedError:
    pass
s.close()

# A connected datagram socket, and one of IPv6 that sends over IPv4.
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect((address, 9))
s.send(b'x')
tell('connected', s, 'silent')
s.close()
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.sendto(b'x', ('::ffff:' + address, 9))
tell('mapped', s, 'silent')
s.close()
