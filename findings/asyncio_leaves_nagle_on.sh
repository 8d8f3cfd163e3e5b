#!/usr/bin/env bash
# asyncio turns Nagle's algorithm off on its connections, but not on those that come in on a socket of
# socket.create_server(): that one does not state its protocol, and asyncio asks for TCP by name. A server that gets its
# socket so (uvicorn with sockets=, as this program's viewer) and writes an answer in two parts then waits 40 ms for the
# other side's acknowledgement between them. The viewer hands over a socket that states IPPROTO_TCP.
set -euo pipefail
"${PYTHON:-python3}" - <<'PYTHON'
import asyncio
import platform
import socket
import statistics
import time


class TwoParts(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(b"head")
        self.transport.write(b"body")


def ask(port, times):
    with socket.create_connection(("127.0.0.1", port)) as client:
        for _ in range(40):
            start, got = time.perf_counter(), b""
            client.sendall(b"?")
            while len(got) < 8:
                got += client.recv(64)
            times.append(1000 * (time.perf_counter() - start))


async def served(listening):
    times = []
    server = await asyncio.get_running_loop().create_server(TwoParts, sock=listening)
    await asyncio.to_thread(ask, listening.getsockname()[1], times)
    server.close()
    return statistics.median(times)


plain = socket.create_server(("127.0.0.1", 0))
kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
stated = socket.socket(*kind, fileno=socket.create_server(("127.0.0.1", 0)).detach())
print("Python", platform.python_version(), platform.system(), "protocols:", plain.proto, stated.proto)
slow, fast = asyncio.run(served(plain)), asyncio.run(served(stated))
print("expected: answers in two parts take as long on both sockets")
print(f"seen: {slow:.1f} ms on the socket of socket.create_server(), {fast:.2f} ms on one that states its protocol")
assert slow > 20 > 5 > fast
PYTHON
