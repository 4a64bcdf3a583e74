"""An S3 server in a process of its own; prints its port, and ends when its standard input does.

`GET /_log` tells what was put since `DELETE /_stall/off`; after `PUT /_stall/N` the parts after the next N wait until
`PUT /_stall/off`.
"""

import json
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

Start = Callable[..., Any]


class Gate:
    """Moto, with a log of what is put and a place where parts can be held up."""

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._put: list[str] = []
        self._most: int | None = None
        self._changed = threading.Condition()

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path == "/_log":
            start("200 OK", [("content-type", "application/json")])
            with self._changed:
                return [json.dumps(self._put).encode()]
        if path.startswith("/_stall/"):
            with self._changed:
                if path.endswith("off"):
                    self._put = self._put if method == "PUT" else []
                self._most = None if path.endswith("off") else len(self._put) + int(path.rpartition("/")[2])
                self._changed.notify_all()
            start("200 OK", [])
            return [b""]
        if method == "PUT" and path.count("/") > 1:
            with self._changed:
                self._changed.wait_for(lambda: self._most is None or len(self._put) < self._most)
                self._put.append(path)
        return self._moto(environ, start)


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, Gate(), threaded=True)
    server.daemon_threads = True  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.port, flush=True)
    sys.stdin.read()
