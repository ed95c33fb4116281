"""A web server on this machine that answers as badly as one can."""

import contextlib
import http.server
import threading
from types import TracebackType


class Server(http.server.ThreadingHTTPServer):
    """Serves one body at every address: half of it while `half` is not set, no more than half where `cut`."""

    daemon_threads = True

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body, self.status, self.cut, self.requests = body, 200, False, 0
        self.half = threading.Event()
        self.half.set()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def __enter__(self) -> "Server":
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.half.set()
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()

    def do_GET(self) -> None:
        self.server.requests += 1
        self.do_HEAD()
        middle = len(self.server.body) // 2
        with contextlib.suppress(ConnectionError):  # a client may look for redirects and read no body
            self.wfile.write(self.server.body[:middle])
            self.wfile.flush()
            self.server.half.wait(30)
            self.wfile.write(b"" if self.server.cut else self.server.body[middle:])

    def log_message(self, *_: object) -> None:
        pass
