# Sockets that several programs use. Argument: the address of a peer. Prints the peer's port, the
# process that has to be found first, a part of its executable's path, and the number of programs
# that have used the socket in the flow.
import ctypes, os, socket, sys, time

address = sys.argv[1]
libc = ctypes.CDLL(None)


def rename(name):
    libc.prctl(15, name.encode())


def tell(port, pid, exe, users):
    os.write(1, f'{port} {pid} {exe} {users}\n'.encode())


def in_child(name, work):
    child = os.fork()
    if child == 0:
        try:
            rename(name)
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return child


# One socket, a peer each.
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(1000):
    s.sendto(b'x', (address, 8001))
child = in_child('other', lambda: s.sendto(b'x', (address, 8002)))
tell(8001, os.getpid(), 'python', 1)
tell(8002, child, 'python', 1)

# The same at the same time, in turns.
for i in range(20):
    s.sendto(b'x', (address, 8003))
    child = in_child('other', lambda: s.sendto(b'x', (address, 8100 + i)))
    tell(8100 + i, child, 'python', 1)
# The last other comes after the last packet.
tell(8003, os.getpid(), 'python', 20)
s.close()

# One peer, two processes in turns.
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b'x', (address, 8004))
in_child('other', lambda: s.sendto(b'x', (address, 8004)))
s.sendto(b'x', (address, 8004))
tell(8004, os.getpid(), 'python', 2)
s.close()

# Connected to one peer after the other.
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect((address, 8005))
s.send(b'x')


def elsewhere():
    s.connect((address, 8006))
    s.send(b'x')


child = in_child('other', elsewhere)
tell(8005, os.getpid(), 'python', 1)
tell(8006, child, 'python', 1)
s.close()


# Becomes another program with the socket.
def become(port, kind, first):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return child
    s = socket.socket(socket.AF_INET, kind)
    s.connect((address, port))
    if first:
        s.send(b'x' * 17)
    os.dup2(s.fileno(), 9)
    os.execv('/bin/bash', ['bash', '-c', 'for i in 1 2 3; do echo 1234567890 >&9; done; sleep 0.3'])


tell(8007, become(8007, socket.SOCK_DGRAM, True), 'python', 2)
tell(8008, become(8008, socket.SOCK_DGRAM, False), 'bash', 1)
tell(8009, become(8009, socket.SOCK_STREAM, False), 'bash', 1)
tell(8010, become(8010, socket.SOCK_STREAM, True), 'python', 2)
