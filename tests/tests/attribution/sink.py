# Takes whatever comes to some ports, and never answers.
import socket, time

ports = [(socket.SOCK_DGRAM, port) for port in range(8001, 8009)]
ports += [(socket.SOCK_STREAM, port) for port in (8009, 8010)]
sinks = []
for kind, port in ports:
    s = socket.socket(socket.AF_INET, kind)
    s.bind(('0.0.0.0', port))
    if kind == socket.SOCK_STREAM:
        s.listen()
    sinks.append(s)
time.sleep(3600)
