# A process in a cgroup, until standard input ends. Argument: the cgroup's path, which is made and removed.
# Prints the number of the process's network namespace.
import ctypes, os, sys, tempfile

libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def make(path):
    if not os.path.isdir(path):
        make(os.path.dirname(path))
        os.mkdir(path)
        made.append(path)


# Mounted for this process alone.
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
check(libc.unshare(CLONE_NEWNS))
check(libc.mount(None, b'/', None, MS_REC | MS_PRIVATE, None))
root, made = tempfile.mkdtemp(), []
try:
    check(libc.mount(b'none', root.encode(), b'cgroup2', 0, None))
    make(root + sys.argv[1])
    inside = os.fork()
    if inside == 0:
        try:
            with open(f'{root}{sys.argv[1]}/cgroup.procs', 'w') as processes:
                processes.write('0')
            print(os.stat('/proc/self/ns/net').st_ino, flush=True)
            sys.stdin.read()
        finally:
            os._exit(0)
    os.waitpid(inside, 0)
finally:
    for path in reversed(made):
        os.rmdir(path)
    libc.umount2(root.encode(), 0)
    os.rmdir(root)
