"""The explorer's server in a thread of the test, on a free port, and raw questions to it."""

from __future__ import annotations

import socket
import threading
import time

NEEDED = "the explorer needs its extra: pip install 'exemplars[explore]'"
TOKEN = "a-token-of-the-test"


class Served:
    """A server in a thread of its own, and raw questions to it."""

    def __init__(self, views, hosts=(), base_path="", port=0, **options):
        import uvicorn

        from exemplars.explorer import serving
        from exemplars.explorer.state import Explorer

        self.explorer = Explorer(views, **options)
        self.listening = serving.free_socket("127.0.0.1", port)
        self.port = self.listening.getsockname()[1]
        self.address = serving.Address("127.0.0.1", self.port, TOKEN, base_path)
        app = serving.guarded(self.explorer, self.address, hosts)
        self.server = uvicorn.Server(
            uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, ws="none")
        )
        self.thread = threading.Thread(target=self.server.run, args=([self.listening],))

    def __enter__(self):
        self.thread.start()
        self.explorer.prepare()
        while not self.server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join()
        self.explorer.close()
        self.listening.close()

    def raw(self, method, path, headers, body=b""):
        """Status, headers and body of an answer; nothing is added to what is sent."""
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers)]
        request = ("\r\n".join([*lines, "Connection: close"]) + "\r\n\r\n").encode() + body
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as s:
            s.sendall(request)
            parts = []
            while part := s.recv(65536):
                parts.append(part)
        head, _, body = b"".join(parts).partition(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        found = {k.lower(): v for k, v in (line.split(": ", 1) for line in rest)}
        return int(first.split()[1]), found, body

    def prepared(self):
        """The same, once everything is prepared."""
        for view in self.explorer.views.values():
            view.prepare()
        return self
