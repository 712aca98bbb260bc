# Programs that are not what they seem, each with a datagram from a port of its own to 10.9.0.2:7.
# Argument: a folder to put them in. Prints what, port, and what has to be told of it as JSON.
import json, os, shutil, socket, subprocess, sys

folder = os.path.realpath(sys.argv[1])
SEND = 'import os, socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); ' \
    's.bind(("", int(sys.argv[1]))); s.sendto(b"x", ("10.9.0.2", 7)); {then}'
WAIT = 'sys.stdin.read()'
python = os.path.realpath(sys.executable)
ports = iter(range(6001, 7000))


def tell(what, port, **truth):
    print(json.dumps({'what': what, 'src_port': port, **truth}), flush=True)


def copy(name):
    path = os.path.join(folder, name)
    shutil.copy(python, path)
    return path


def file(path):
    stat = os.stat(path)
    device = f'{os.major(stat.st_dev)}:{os.minor(stat.st_dev)}'
    return {'process_exe_inode': stat.st_ino, 'process_exe_device': device}


def run(path, before=None, **more):
    """Runs a copy of Python until standard input ends."""
    port = next(ports)
    child = subprocess.Popen([path, '-c', SEND.format(then=f'print(1, flush=True); {WAIT}'), str(port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=before, **more)
    children.append(child)
    return port, child


def up(child):
    assert child.stdout.readline() == b'1\n'


children = []
plain = {'process_exe_deleted': False, 'process_exe_memory': False, 'process_exe_view': 'host'}

path = copy('named (deleted)')
port, child = run(path)
up(child)
tell('named', port, process_exe=path, **plain, **file(path))

path = copy('a-name-of-more-than-fifteen-bytes')
port, child = run(path)
up(child)
tell('long', port, process_exe=path, src_process_name=os.path.basename(path),
    system_process_name=os.path.basename(path), **plain, **file(path))

link = os.path.join(folder, 'link')
os.symlink(path, link)
port, child = run(link)
up(child)
tell('link', port, process_exe=path, **plain, **file(path))

path = copy('replaced')
was = file(path)
go, hold = os.pipe()
# It is replaced before anybody has heard of it.
port = next(ports)
child = subprocess.Popen([path, '-c', 'import sys; sys.stdin.readline(); '
    + SEND.format(then=f'print(1, flush=True); {WAIT}'), str(port)],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
children.append(child)
while os.readlink(f'/proc/{child.pid}/exe') != path:
    pass
os.unlink(path)
copy('replaced')
child.stdin.write(b'\n')
child.stdin.flush()
up(child)
tell('replaced', port, process_exe=path, **{**plain, 'process_exe_deleted': True}, **was)

memory = os.memfd_create('hidden', 0)
with open(python, 'rb') as source:
    os.sendfile(memory, source.fileno(), 0, os.fstat(source.fileno()).st_size)
readable = os.open(f'/proc/self/fd/{memory}', os.O_RDONLY)
inode = os.fstat(memory).st_ino
os.close(memory)
port, child = run(f'/proc/self/fd/{readable}', pass_fds=[readable])
up(child)
tell('memory', port, process_exe='/memfd:hidden', process_exe_memory=True,
    process_exe_deleted=False, process_exe_inode=inode)

# Of a millisecond each, with users of their own.
for number in range(20):
    port = next(ports)
    script = f'''
import os, socket
os.setresgid(2000, 2001, 2002)
os.setresuid(1000, 1001, 1002)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", {port}))
s.sendto(b"x", ("10.9.0.2", 7))
os._exit(0)
'''
    if os.fork() == 0:
        exec(script)
    os.wait()
    # It has never begun a program of its own.
    tell('users', port, process_uid=1001, process_ruid=1000, process_gid=2001, process_rgid=2000,
        process_exe=python, process_exe_view='host', process_ppid=os.getpid(),
        in_cmdline='Programs that are not what they seem', in_ancestor_pids=os.getpid(), in_ancestor_exes=python)

# Sends and becomes another program at once, which sends by a socket of its own, many times.
for number in range(20):
    first, second = next(ports), next(ports)
    child = os.fork()
    if child == 0:
        os.execv(python, [python, '-c', SEND.format(then='os.execv("/bin/bash", ["bash", "-c", '
            f'"exec 3<>/dev/udp/10.9.0.2/{second}; echo x >&3", "after"])'), str(first)])
    os.waitpid(child, 0)
    tell('loader', first, process_exe=python, in_cmdline='os.execv', process_args_0=python)
    tell('loaded', None, dst_port=second, process_exe=os.path.realpath('/bin/bash'),
        in_cmdline='echo x', process_args_0='bash')

sys.stdin.read()
for child in children:
    child.stdin.close()
    child.wait()
