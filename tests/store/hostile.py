"""An S3 server in memory that misbehaves on demand."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

DATE = "Sun, 22 Nov 2026 00:00:00 GMT"


class HostileServer(ThreadingHTTPServer):
    """A server with one object store.

    Attributes:
        objects: What is stored, by URL path.
        plan: Misbehaviours of the next requests: "ok", "hang", "truncate", "whole" (ignores Range),
            "shifted" (another range than asked for), "lose-answer" (does it, then hangs up), or an error
            "STATUS CODE".
        conditions: Which conditions are honoured, as names of headers.
        raw_etags: Whether If-Match is compared as it came, to an etag without quotes.
        requests: Method and path of all requests so far.
        headers: Of all requests so far.
    """

    daemon_threads = False
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.plan: deque[str] = deque()
        self.conditions = {"If-None-Match", "If-Match"}
        self.raw_etags = False
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.ended = threading.Event()
        self.connections: list[socket.socket] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients that hang up are what these tests are about."""


@contextlib.contextmanager
def hostile_server() -> Iterator[HostileServer]:
    server = HostileServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        for connection in server.connections:  # clients keep theirs until they are garbage collected
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        server.shutdown()
        thread.join()
        server.server_close()


def _etag(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5  # seconds; a forgotten connection must not keep the test waiting
    server: HostileServer

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        server = self.server
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server.requests.append(f"{self.command} {url.path}")
        server.headers.append(dict(self.headers))
        deed = server.plan.popleft() if server.plan else "ok"
        if deed == "hang":
            server.ended.wait(30)
            self.close_connection = True
        elif deed[0].isdigit():
            status, code = deed.split()
            self._error(int(status), code)
        elif self.command == "PUT":
            self._put(url.path, body, answers=deed != "lose-answer")
        elif self.command == "DELETE":
            server.objects.pop(url.path, None)
            self._answer(204)
        elif "list-type" in parse_qs(url.query, keep_blank_values=True):
            self._list(parse_qs(url.query))
        elif url.path not in server.objects:
            self._error(404, "NoSuchKey")
        else:
            self._get(server.objects[url.path], deed)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _put(self, path: str, body: bytes, answers: bool) -> None:
        objects, honoured = self.server.objects, self.server.conditions
        wanted = self.headers.get("If-Match") if "If-Match" in honoured else None
        if "If-None-Match" in honoured and self.headers.get("If-None-Match") and path in objects:
            return self._error(412, "PreconditionFailed")
        if wanted is not None:
            if path not in objects:
                return self._error(404, "NoSuchKey")
            if wanted != (_etag(objects[path]) if self.server.raw_etags else f'"{_etag(objects[path])}"'):
                return self._error(412, "PreconditionFailed")
        objects[path] = body
        if answers:
            return self._answer(200, etag=_etag(body))
        self.close_connection = True
        return None

    def _get(self, data: bytes, deed: str) -> None:
        asked = self.headers.get("Range")
        if asked is None or deed == "whole":
            return self._answer(200, data, etag=_etag(data), truncated=deed == "truncate")
        first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
        if first >= len(data):
            return self._error(416, "InvalidRange")
        if deed == "shifted":
            first, last = first + 1, last + 1
        piece = data[first : last + 1]
        stated = f"bytes {first}-{first + len(piece) - 1}/{len(data)}"
        return self._answer(206, piece, content_range=stated, truncated=deed == "truncate")

    def _list(self, query: dict[str, list[str]]) -> None:
        folder = urlsplit(self.path).path.rstrip("/") + "/"
        prefix = query.get("prefix", [""])[0]
        names = sorted(path.removeprefix(folder) for path in self.server.objects)
        names = [name for name in names if name.startswith(prefix)]
        start = int(query.get("continuation-token", ["0"])[0])
        more = start + 2 < len(names)
        entries = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>1</Size><ETag>x</ETag>"
            "<LastModified>2026-11-22T00:00:00Z</LastModified></Contents>"
            for name in names[start : start + 2]
        )
        token = f"<NextContinuationToken>{start + 2}</NextContinuationToken>" if more else ""
        text = f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}"
        self._answer(200, f"{text}</ListBucketResult>".encode())

    def _error(self, status: int, code: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>the-secret-in-a-message</Message></Error>"
        self._answer(status, text.encode())

    def _answer(
        self, status: int, data: bytes = b"", *, etag: str = "", content_range: str = "", truncated: bool = False
    ) -> None:
        self.send_response(status)
        headers = {"Content-Length": str(len(data)), "Last-Modified": DATE, "Content-Range": content_range}
        headers["ETag"] = f'"{etag}"' if etag else ""
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if truncated:
            data = data[: len(data) // 2]
            self.close_connection = True
        if self.command != "HEAD":
            self.wfile.write(data)
