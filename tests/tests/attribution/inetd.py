# A server that accepts, forks, peeks, and has another program serve. Argument: the port. Prints the
# pids of those that serve.
import os, socket, sys

listener = socket.create_server(('0.0.0.0', int(sys.argv[1])))
os.write(1, b'ready\n')
for i in range(3):
    s, _ = listener.accept()
    child = os.fork()
    if child == 0:
        s.recv(1, socket.MSG_PEEK)
        os.dup2(s.fileno(), 9)
        os.execv('/bin/bash', ['bash', '-c', 'read line <&9; echo "$line" >&9; sleep 0.3'])
    s.close()
    os.waitpid(child, 0)
    os.write(1, f'{child}\n'.encode())
