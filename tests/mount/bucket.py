"""An S3 server in memory that can be stopped, started again, made to wait, and made to lie."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from store import hostile

PLACE = "s3://bucket/data"
_FOLDER = "/bucket/data/"


class Bucket:
    """The server, and what is in it.

    Attributes:
        objects: What is stored, by URL path; kept while the server is away.
        gates: A GET of an object named here waits until its event is set.
        lies: An object named here is sent with a wrong byte, so many more times.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.gates: dict[str, threading.Event] = {}
        self.lies: dict[str, int] = {}
        self._requests: list[str] = []
        self._port = 0
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to answer, on the same port as ever."""
        server = self._server = _Server(self._port, self)
        server.objects, server.requests = self.objects, self._requests
        self._port = server.server_address[1]
        self._thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        """Hang up on everybody, and refuse connections from now on."""
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        self._server = None
        server.ended.set()
        server.shutdown()
        thread.join()
        for connection in server.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        server.server_close()

    def environment(self) -> dict[str, str]:
        """The AWS configuration for it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "access",
            "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-may-see",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",  # the mount tries again by itself; without this each try takes many seconds
        }

    def packs(self) -> set[str]:
        """URL paths of all packs."""
        return {path for path in self.objects if path.startswith(f"{_FOLDER}packs/")}

    def fetches(self) -> int:
        """How often a part of a pack has been asked for."""
        return sum(request.startswith(f"GET {_FOLDER}packs/") for request in self._requests)

    def plan(self, *deeds: str) -> None:
        """Say how the next requests fail; see `HostileServer.plan`."""
        assert self._server is not None
        self._server.plan.extend(deeds)


class _Server(hostile.HostileServer):
    def __init__(self, port: int, bucket: Bucket) -> None:
        self._port = port
        self.bucket = bucket
        super().__init__()
        self.RequestHandlerClass = _Handler

    def server_bind(self) -> None:
        self.server_address = ("127.0.0.1", self._port)
        super().server_bind()


class _Handler(hostile._Handler):  # type: ignore[misc,unused-ignore]
    server: _Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        gate = self.server.bucket.gates.get(path)
        while gate is not None and not gate.wait(0.05):
            if self.server.ended.is_set():
                self.close_connection = True
                return
        super().do_GET()

    def _get(self, data: bytes, deed: str) -> None:
        lies = self.server.bucket.lies
        path = self.path.partition("?")[0]
        if lies.get(path, 0) > 0:
            lies[path] -= 1
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        super()._get(data, deed)


@contextlib.contextmanager
def running_bucket() -> Iterator[Bucket]:
    """Run a server for the length of the block."""
    bucket = Bucket()
    bucket.start()
    try:
        yield bucket
    finally:
        for gate in bucket.gates.values():
            gate.set()
        bucket.stop()
