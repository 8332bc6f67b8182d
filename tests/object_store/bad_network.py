"""A TCP proxy before an S3 server that breaks connections or changes bytes, as bad networks and proxies do."""

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Fault:
    """What happens to one connection after so many bytes: `cut` closes it, `reset` sends RST, `flip` changes a byte.

    Bytes are those from the server to the client, or the other way with `upload`.
    """

    kind: str
    after_bytes: int
    upload: bool = False


class BadNetwork:
    """Each new connection takes the next fault of `faults`; without one it passes everything."""

    def __init__(self, server_port: int) -> None:
        self.faults: list[Fault] = []
        self.struck = 0  # faults that took effect
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # A thread that waits in accept() is woken by this, not by close().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            fault = self.faults.pop(0) if self.faults else None
            down, up = (None, fault) if fault and fault.upload else (fault, None)
            threading.Thread(target=self._pass, args=(server, client, down, client), daemon=True).start()
            threading.Thread(target=self._pass, args=(client, server, up, client), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, fault: Fault | None, client: socket.socket) -> None:
        left = fault.after_bytes if fault else None
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if fault and left is not None and len(data) > left:
                    with self._lock:
                        self.struck += 1
                    if fault.kind == "flip":
                        data = data[:left] + bytes([data[left] ^ 1]) + data[left + 1 :]
                        left = None
                    else:
                        target.sendall(data[:left])
                        if fault.kind == "reset":
                            # Without a time to linger, closing sends RST; the other thread holds the socket too.
                            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                            client.shutdown(socket.SHUT_RD)
                        break
                elif left is not None:
                    left -= len(data)
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
