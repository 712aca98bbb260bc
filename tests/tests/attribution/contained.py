# Processes in cgroups of their own, each with one connection until standard input ends.
# Arguments: address, port, cgroups' paths. Prints protocol, local port, pid, name and path of each.
# The cgroups' hierarchy is mounted for this process alone, and what was made in it is removed.
import ctypes, os, socket, sys, tempfile

address, port, paths = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def make(path):
    if not os.path.isdir(path):
        make(os.path.dirname(path))
        os.mkdir(path)
        made.append(path)


def inside(path, name):
    os.close(ends)
    with open(f'{root}{path}/cgroup.procs', 'w') as processes:
        processes.write('0')
    libc.prctl(15, name.encode())
    with socket.create_connection((address, port), 10) as s:
        s.sendall(b'x')
        s.recv(1)
        os.write(1, f'6 {s.getsockname()[1]} {os.getpid()} {name} {path}\n'.encode())
        os.read(done, 1)


CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
check(libc.unshare(CLONE_NEWNS))
check(libc.mount(None, b'/', None, MS_REC | MS_PRIVATE, None))
root, made, children = tempfile.mkdtemp(), [], []
done, ends = os.pipe()
try:
    check(libc.mount(b'none', root.encode(), b'cgroup2', 0, None))
    for number, path in enumerate(paths):
        make(root + path)
        child = os.fork()
        if child == 0:
            try:
                inside(path, f'inside-{number}')
            finally:
                os._exit(1)
        children.append(child)
    sys.stdin.read()
finally:
    os.close(ends)
    for child in children:
        os.waitpid(child, 0)
    for path in reversed(made):
        os.rmdir(path)
    libc.umount2(root.encode(), 0)
    os.rmdir(root)
