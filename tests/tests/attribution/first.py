# The first and only process of each of some new cgroups, gone after a datagram to 10.9.0.2:7.
# Arguments: cgroups' paths. Prints port and path of each. The cgroups' hierarchy is mounted for this
# process alone, and what was made in it is removed.
import ctypes, os, socket, sys, tempfile

libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def make(path):
    if not os.path.isdir(path):
        make(os.path.dirname(path))
        os.mkdir(path)
        made.append(path)


CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
check(libc.unshare(CLONE_NEWNS))
check(libc.mount(None, b'/', None, MS_REC | MS_PRIVATE, None))
root, made = tempfile.mkdtemp(), []
try:
    check(libc.mount(b'none', root.encode(), b'cgroup2', 0, None))
    for number, path in enumerate(sys.argv[1:]):
        make(root + path)
        if os.fork() == 0:
            try:
                with open(f'{root}{path}/cgroup.procs', 'w') as processes:
                    processes.write('0')
                s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                s.bind(('', 7001 + number))
                s.sendto(b'x', ('10.9.0.2', 7))
            finally:
                os._exit(0)
        os.wait()
        os.rmdir(made.pop())
        print(7001 + number, path)
finally:
    for path in reversed(made):
        os.rmdir(path)
    libc.umount2(root.encode(), 0)
    os.rmdir(root)
