# Processes that talk over one connection each until standard input ends.
# Arguments: address, port, processes. Prints protocol, local port, pid and name of each.
import contextlib, ctypes, os, socket, sys, time

address, port, processes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for number in range(processes):
    if os.fork() == 0:
        os.close(0)
        name = f'long-{number}'
        ctypes.CDLL(None).prctl(15, name.encode())
        s = socket.create_connection((address, port))
        os.write(1, f'6 {s.getsockname()[1]} {os.getpid()} {name}\n'.encode())
        s.settimeout(5)
        parent = os.getppid()
        with contextlib.suppress(ConnectionError):
            while os.getppid() == parent:
                s.sendall(b'x' * 100)
                s.recv(100)
                time.sleep(0.02)
        os._exit(0)
sys.stdin.read()
