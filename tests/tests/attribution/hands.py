# Sockets in every hand: who made it, who used it, and by which call. Arguments: where this is (`host`,
# `container`, `setns`), and for the last two a path: the cgroup's, the network namespace's that the
# sockets are of. The peer is peer.py. Prints a line for each: hand, transport, family, protocol, local
# port (0 if there is none), the peer's address, and the process that has to be found: its number and
# name, and how many programs have used the socket in the flow. Or else what is skipped, and why.
import ctypes, mmap, os, signal, socket, struct, sys, tempfile, threading, time

libc = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWPID, NEWNET = 0x20000, 0x20000000, 0x40000000
STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
MPTCP, RAW = 262, 253
numbers, ports = iter(range(1, 255)), iter(range(20000, 30000))


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def rename(name):
    libc.prctl(15, name.encode())


def pid():
    """As the host has it, whose /proc this is."""
    return int(os.readlink('/proc/self'))


def say(text):
    os.write(report[1], f'{text}\n'.encode())


def child(name, work):
    if os.fork() == 0:
        signal.alarm(100)
        try:
            rename(name)
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, f'{name}: {error!r}\n'.encode())
            os._exit(1)


def run(name, work):
    """What the process and those that it makes have said, when all are gone."""
    global report
    report = os.pipe()
    child(name, work)
    os.close(report[1])
    with os.fdopen(report[0]) as said:
        return dict(line.split(' ', 1) for line in said.read().splitlines())


def uring(flags):
    """Sends by an io_uring of one entry."""
    def send(s, data):
        parameters = ctypes.create_string_buffer(120)
        ring = check(libc.syscall(425, 1, parameters))
        tail, array = struct.unpack_from('4xI16xI', parameters, 40)
        entries, = struct.unpack_from('20xI', parameters, 80)
        queue = mmap.mmap(ring, array + 4)
        done = mmap.mmap(ring, entries + 32, offset=0x8000000)
        requests = mmap.mmap(ring, 64, offset=0x10000000)
        room = ctypes.create_string_buffer(data, len(data))
        struct.pack_into('=BBHiQQII', requests, 0, 26, flags, 0, s.fileno(), 0,
                         ctypes.addressof(room), len(data), 0)
        struct.pack_into('I', queue, tail, 1)
        check(libc.syscall(426, ring, 1, 1, 1, None, 0))
        check(struct.unpack_from('8xi', done, entries)[0] - len(data))
        os.close(ring)
    return send


def splice(s, data):
    there, here = os.pipe()
    os.write(here, data)
    os.splice(there, s.fileno(), len(data))


def sendfile(s, data):
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        os.sendfile(s.fileno(), file.fileno(), 0, len(data))


def write(s, data):
    os.write(s.fileno(), data)


# Type, protocol, protocol of the flow, and how it is used.
TRANSPORTS = {
    'tcp': (STREAM, 0, 6, write),
    'mptcp': (STREAM, MPTCP, 6, write),
    'udp': (DATAGRAM, 0, 17, write),
    'sendto': (DATAGRAM, 0, 17, None),
    'icmp': (DATAGRAM, 1, 1, write),
    'raw': (socket.SOCK_RAW, RAW, RAW, write),
    'uring': (STREAM, 0, 6, uring(0)),
    'uring-async': (STREAM, 0, 6, uring(16)),
    'splice': (STREAM, 0, 6, splice),
    'sendfile': (STREAM, 0, 6, sendfile),
}


class Way:
    """A transport over a family: 4, 6, or 4 by a socket of 6."""

    def __init__(self, transport, family):
        self.kind, self.protocol, self.flows, self.how = TRANSPORTS[transport]
        self.transport, self.family = transport, family
        self.data = b'\x08' + bytes(7)
        if family == '6' and self.flows == 1:
            self.protocol = self.flows = 58
            self.data = b'\x80' + bytes(7)
        self.has_ports = self.flows in (6, 17)
        number = 2 if self.has_ports else next(numbers)
        self.port = next(ports) if self.has_ports else 0
        self.peer = f'fd0a::{number:x}' if family == '6' else f'10.9.1.{number}'
        self.to = ('::ffff:' if family == 'mapped' else '') + self.peer, 7 if self.has_ports else 0

    def open(self):
        family = socket.AF_INET if self.family == '4' else socket.AF_INET6
        s = there(lambda: socket.socket(family, self.kind, self.protocol))
        if self.has_ports:
            s.bind(('', self.port))
        if self.transport != 'sendto':
            s.connect(self.to)
        say(f'socket {self.flows} {self.port} {self.peer}')
        return s

    def use(self, s):
        if self.how:
            self.how(s, self.data)
        else:
            s.sendto(self.data, self.to)


def found(name, users=1):
    say(f'user {pid()} {name} {users}')


# What hands do with a socket.
def alone(way):
    """A process makes it, uses it, and is gone."""
    def work():
        way.use(way.open())
        found('alone')
    return run('alone', work)


def thread(way):
    """It is used by a thread of another name."""
    def work():
        s = way.open()
        user = threading.Thread(target=lambda: (rename('thread'), way.use(s)))
        user.start()
        user.join()
        found('leader')
    return run('leader', work)


def silent(way):
    """It is only connected."""
    return run('silent', lambda: (way.open(), found('silent')))


def heir(way):
    """A child uses what its parent has made."""
    def work():
        s = way.open()
        child('heir', lambda: (way.use(s), found('heir')))
        os.wait()
    return run('maker', work)


def both(way):
    """A child uses it after its parent."""
    def work():
        s = way.open()
        way.use(s)
        child('heir', lambda: way.use(s))
        os.wait()
        found('maker', 2)
    return run('maker', work)


def orphan(way):
    """Who made it is gone when it is used."""
    def work():
        s, maker = way.open(), os.getpid()

        def late():
            while os.getppid() == maker:
                time.sleep(0.001)
            way.use(s)
            found('orphan')
        child('orphan', late)
    return run('maker', work)


def passed(way):
    """It is passed to a process that was there before."""
    def work():
        near, far = socket.socketpair(socket.AF_UNIX, DATAGRAM)

        def receive():
            _, [fd], _, _ = socket.recv_fds(far, 1, 1)
            way.use(socket.socket(fileno=fd))
            found('receiver')
        child('receiver', receive)
        s = way.open()
        socket.send_fds(near, [b'x'], [s.fileno()])
        os.wait()
    return run('maker', work)


def taken(way):
    """Another process takes it without its maker's help."""
    def work():
        s = way.open()
        maker = os.getpid()

        def take():
            fd = check(libc.syscall(438, check(libc.syscall(434, maker, 0)), s.fileno(), 0))
            way.use(socket.socket(fileno=fd))
            found('taker')
        child('taker', take)
        os.wait()
    return run('maker', work)


def execute(way, s):
    os.dup2(s.fileno(), 9)
    data = ''.join(f'\\{byte:03o}' for byte in way.data)
    os.execv('/bin/bash', ['bash', '-c', f"printf '{data}' >&9"])


def executed(way):
    """The process becomes another program, which uses it."""
    def work():
        s = way.open()
        found('bash')
        execute(way, s)
    return run('before', work)


def before(way):
    """The process becomes another program, and both use it."""
    def work():
        s = way.open()
        way.use(s)
        found('before', 2)
        execute(way, s)
    return run('before', work)


# What hands do with a connection from the peer.
def served(accept, work):
    """`accept` is done by who listens, `work` by a child of it."""
    def serve(way):
        def listen():
            family = socket.AF_INET if way.family == '4' else socket.AF_INET6
            s = there(lambda: socket.socket(family, way.kind, way.protocol))
            s.bind(('', way.port))
            say(f'socket {way.flows} {way.port} {way.peer}')
            if way.kind == STREAM:
                s.listen()
            ask(way)
            accept(way, s, work)
            os.wait()
        return run('listener', listen)
    return serve


def ask(way):
    """Has the peer call."""
    us = '10.9.0.1' if way.family != '6' else 'fd09::1'
    protocol = way.protocol if way.kind == STREAM else -1
    with socket.create_connection(('10.9.0.2', 6), 30) as s:
        s.sendall(f'{us} {way.port} {way.peer} {protocol}\n'.encode())
        s.recv(1)


def answer(way, s):
    if way.kind == DATAGRAM:
        _, way.to = s.recvfrom(9)
        s.sendto(b'y', way.to)
        return
    if way.transport == 'splice':
        there, here = os.pipe()
        os.splice(s.fileno(), here, 9)
        os.splice(there, s.fileno(), 9)
        return
    if not way.transport.startswith('uring'):
        s.recv(9)
    way.how(s, b'y')


def drain(way, s):
    """Only reads, by splice alone."""
    _, here = os.pipe()
    os.splice(s.fileno(), here, 9)


def accepts(way, s, work):
    child('server', lambda: (work(way, s.accept()[0] if way.kind == STREAM else s), found('server')))


def hands_on(way, s, work):
    s = s.accept()[0] if way.kind == STREAM else s
    child('server', lambda: (work(way, s), found('server')))


def peeks(way, s, work):
    s = s.accept()[0] if way.kind == STREAM else s
    s.recv(1, socket.MSG_PEEK)
    child('server', lambda: (work(way, s), found('server')))


HANDS = {
    'alone': alone, 'thread': thread, 'silent': silent, 'heir': heir, 'both': both,
    'orphan': orphan, 'passed': passed, 'taken': taken, 'executed': executed, 'before': before,
    'accepts': served(accepts, answer), 'hands-on': served(hands_on, answer),
    'peeks': served(peeks, answer), 'drains': served(accepts, drain),
    'hands-drain': served(hands_on, drain),
}


def can(hand, way):
    if hand in ('drains', 'hands-drain'):
        return way.transport == 'splice'
    is_plain = way.how in (write, None)
    if hand == 'silent':
        return way.transport in ('tcp', 'mptcp')
    if hand in ('executed', 'before'):
        return way.how is write
    if hand in ('accepts', 'hands-on', 'peeks'):
        return way.has_ports and way.transport != 'udp'
    return is_plain or hand not in ('thread', 'taken')


def is_there(transport, family):
    kind, protocol, flows, _ = TRANSPORTS[transport]
    domain = socket.AF_INET if family == '4' else socket.AF_INET6
    if flows == 1 and family == '6':
        protocol = 58
    try:
        there(lambda: socket.socket(domain, kind, protocol)).close()
    except OSError:
        return False
    return True


# Where the processes are.
def there(work):
    return work()


def contain(path):
    """In a cgroup and a pid namespace of its own."""
    root = tempfile.mkdtemp()
    check(libc.unshare(NEWNS))
    check(libc.mount(None, b'/', None, 0x4000 | 1 << 18, None))
    check(libc.mount(b'none', root.encode(), b'cgroup2', 0, None))
    os.makedirs(root + path, exist_ok=True)
    with open(f'{root}{path}/cgroup.procs', 'w') as processes:
        processes.write('0')
    check(libc.unshare(NEWPID))
    if os.fork():
        _, status = os.wait()
        with open(f'{root}/cgroup.procs', 'w') as processes:
            processes.write('0')
        os.rmdir(root + path)
        os.rmdir(os.path.dirname(root + path))
        libc.umount2(root.encode(), 0)
        os.rmdir(root)
        sys.exit(os.waitstatus_to_exitcode(status))


def elsewhere(path):
    """In another network namespace than the sockets."""
    of_sockets = os.open(path, os.O_RDONLY)
    check(libc.unshare(NEWNET))
    here = os.open('/proc/self/ns/net', os.O_RDONLY)

    def do(work):
        check(libc.setns(of_sockets, NEWNET))
        try:
            return work()
        finally:
            check(libc.setns(here, NEWNET))
    return do


with open('/proc/sys/net/ipv4/ping_group_range', 'w') as groups:
    groups.write('0 0')
if sys.argv[1] == 'container':
    contain(sys.argv[2])
if sys.argv[1] == 'setns':
    in_the_sockets = elsewhere(sys.argv[2])
    there = in_the_sockets
    call = ask
    ask = lambda way: in_the_sockets(lambda: call(way))
failed = 0
for transport in TRANSPORTS:
    for family in ('4', '6', 'mapped'):
        if family == 'mapped' and transport in ('icmp', 'raw'):
            continue
        if not is_there(transport, family):
            os.write(1, f'skipped: this kernel has no {transport} over {family}\n'.encode())
            continue
        for hand, work in HANDS.items():
            way = Way(transport, family)
            if not can(hand, way):
                continue
            said = work(way)
            if set(said) == {'socket', 'user'}:
                words = f'{hand} {transport} {family} {said["socket"]} {said["user"]}'
                os.write(1, f'{words}\n'.encode())
            else:
                os.write(2, f'{hand} {transport} {family}: {said}\n'.encode())
                failed = 1
sys.exit(failed)
