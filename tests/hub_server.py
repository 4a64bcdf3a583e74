"""What a push and a pull need of the Hugging Face hub's API, in a process of its own.

Repositories, the preupload, LFS in one piece, commits as lines of JSON, trees and files. Whoever has no token may do
nothing, and `read-only` may not write. Prints its port, and ends when its standard input does.
"""

import base64
import hashlib
import json
import re
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

REGULAR_BYTES = 1 << 12  # from which on a file goes by LFS


@dataclass
class Repository:
    is_private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)


REPOSITORIES: dict[str, Repository] = {}
OBJECTS: dict[str, bytes] = {}
LOG: list[str] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def answer(self, value: Any = None, status: int = 200, **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"content-type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str = "") -> None:
        self.answer({"error": code or str(status)}, status, **({"x_error_code": code} if code else {}))

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/_state":
            repositories = {
                name: {"private": each.is_private, "files": sorted(each.files), "commits": each.commits}
                for name, each in REPOSITORIES.items()
            }
            return self.answer({"repositories": repositories, "log": LOG})
        if not self.token():
            return self.refuse(401)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/main/?(.*)", path):
            repository, folder = REPOSITORIES.get(found[1]), found[2]
            if repository is None:
                return self.refuse(404, "RepoNotFound")
            names = [name for name in repository.files if not folder or name.startswith(f"{folder}/")]
            if folder and not names:
                return self.refuse(404, "EntryNotFound")
            return self.answer([self.entry(repository, name) for name in names])
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/main/(.*)", path):
            repository = REPOSITORIES.get(found[1])
            if repository is None:
                return self.refuse(404, "RepoNotFound")
            if found[2] not in repository.files:
                return self.refuse(404, "EntryNotFound")
            data = repository.files[found[2]]
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            return self.answer(data, etag=etag, x_repo_commit="0" * 40, accept_ranges="bytes")
        return self.refuse(404)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        data = self.body()
        oid = self.path.rpartition("/")[2]
        if hashlib.sha256(data).hexdigest() != oid:
            return self.refuse(400)
        OBJECTS[oid] = data
        LOG.append(oid)
        return self.answer(b"")

    def do_POST(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self.body()
        if not self.token():
            return self.refuse(401)
        if self.token() == "read-only" and "paths-info" not in path:
            return self.refuse(403)
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            told = json.loads(body)
            owner = told.get("organization") or "me"
            name = f"{owner}/{told['name']}"
            if name in REPOSITORIES:
                return self.answer({"url": f"{self.origin}/{name}"}, 409)
            REPOSITORIES[name] = Repository(told.get("private") is True or told.get("visibility") == "private")
            return self.answer({"url": f"{self.origin}/{name}"})
        if found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            objects = [{"oid": each["oid"], "size": each["size"]} for each in json.loads(body)["objects"]]
            for each in objects:
                if each["oid"] not in OBJECTS:
                    each["actions"] = {"upload": {"href": f"{self.origin}/lfs/{each['oid']}"}}
            return self.answer({"transfer": "basic", "objects": objects})
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(paths-info|preupload|commit)/main", path)
        repository = REPOSITORIES.get(found[1]) if found else None
        if found is None or repository is None:
            return self.refuse(404, "RepoNotFound")
        if found[2] == "paths-info":
            kind = self.headers.get("content-type", "")
            paths = json.loads(body)["paths"] if "json" in kind else parse_qs(body.decode())["paths"]
            return self.answer([self.entry(repository, name) for name in paths if name in repository.files])
        if found[2] == "preupload":
            modes = [
                {"path": each["path"], "uploadMode": "lfs" if each["size"] >= REGULAR_BYTES else "regular"}
                for each in json.loads(body)["files"]
            ]
            return self.answer({"files": [{**mode, "shouldIgnore": False} for mode in modes]})
        return self.commit(repository, [json.loads(line) for line in body.splitlines() if line.strip()])

    def commit(self, repository: Repository, lines: list[Any]) -> None:
        files = dict(repository.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = OBJECTS[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        repository.files = files
        repository.commits.append(sorted(files))
        self.answer(
            {"success": True, "commitOid": "0" * 40, "commitUrl": f"{self.origin}/me/x/commit/0", "hookOutput": ""}
        )

    def entry(self, repository: Repository, name: str) -> dict[str, Any]:
        data = repository.files[name]
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"  # type: ignore[attr-defined]


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
