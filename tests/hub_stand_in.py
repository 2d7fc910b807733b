"""A stand-in for the Hugging Face Hub: as much of its HTTP as pushing and pulling need.

It listens on 127.0.0.1, keeps everything in memory, and is no test itself.
"""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlparse


class Hub:
    def __init__(self) -> None:
        self.url = ""
        self.repos: dict[str, list[dict[str, bytes]]] = {}
        """Repository -> its commits, each all of its files."""
        self.large: dict[str, bytes] = {}
        self.lfs: set[str] = set()
        self.requests: list[str] = []

    def put(self, repo: str, files: dict[str, bytes]) -> None:
        self.repos.setdefault(repo, []).append(dict(files))

    def files(self, repo: str) -> dict[str, bytes]:
        return self.repos[repo][-1] if self.repos[repo] else {}

    def commit_of(self, repo: str) -> str:
        return hashlib.sha1(f"{repo} {len(self.repos[repo])}".encode()).hexdigest()


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def answer(self, status: int, body: object = None, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", headers.get("length", str(len(content))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def missing(self, code: str) -> None:
        self.answer(404, {"error": code}, X_Error_Code=code)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            content = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def route(self) -> None:
        hub, url = self.state, urlparse(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        hub.requests.append(f"{self.command} {url.path}")
        content = self.body()
        if parts == ["api", "whoami-v2"]:
            self.answer(200, {"type": "user", "name": "me", "orgs": []})
        elif parts == ["api", "validate-yaml"]:
            self.answer(200, {"errors": [], "warnings": []})
        elif parts == ["api", "repos", "create"]:
            self.create(json.loads(content))
        elif parts[:2] == ["api", "models"]:
            self.api("/".join(parts[2:4]), parts[4:], content, parse_qs(url.query))
        elif parts[-3:] == ["info", "lfs", "objects"] or parts[-4:-1] == ["info", "lfs", "objects"]:
            self.batch(json.loads(content))
        elif parts[0] == "upload":
            assert hashlib.sha256(content).hexdigest() == parts[1]
            hub.large[parts[1]] = content
            self.answer(200, {})
        elif len(parts) > 3 and parts[2] == "resolve":
            self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self.missing("Unknown")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = route

    def create(self, wanted: dict) -> None:
        repo = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        if repo.startswith("forbidden/"):
            self.answer(403, {"error": "You may not write there"})
            return
        status = 409 if repo in self.state.repos else 200
        self.state.repos.setdefault(repo, [])
        self.answer(status, {"url": f"{self.state.url}/{repo}"})

    def api(self, repo: str, rest: list[str], content: bytes, query: dict) -> None:
        hub = self.state
        if repo not in hub.repos:
            self.missing("RepoNotFound")
            return
        what, revision = (rest[0] if rest else "revision"), (rest[1] if len(rest) > 1 else "main")
        if revision not in ("main", hub.commit_of(repo)):
            self.missing("RevisionNotFound")
        elif what == "preupload":
            kinds = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(content)["files"]
            ]
            self.answer(200, {"files": kinds})
        elif what == "commit":
            self.commit(repo, content)
        elif what == "tree":
            start = "/".join(rest[2:])
            self.answer(200, [
                self.entry(name, data) for name, data in hub.files(repo).items()
                if name.startswith(f"{start}/" if start else "")
            ])  # fmt: skip
        elif what == "paths-info":
            wanted = json.loads(content)["paths"]
            files = hub.files(repo)
            self.answer(200, [self.entry(n, files[n]) for n in wanted if n in files])
        else:
            self.answer(200, {
                "_id": "1", "id": repo, "modelId": repo, "sha": hub.commit_of(repo),
                "private": False, "tags": [], "downloads": 0, "likes": 0,
                "siblings": [{"rfilename": name} for name in hub.files(repo)],
            })  # fmt: skip

    def entry(self, name: str, data: bytes) -> dict:
        entry = {"type": "file", "oid": self.etag(name, data), "size": len(data), "path": name}
        if name in self.state.lfs:
            oid = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"oid": oid, "size": len(data), "pointerSize": 130}
        return entry

    def etag(self, name: str, data: bytes) -> str:
        if name in self.state.lfs:
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def batch(self, wanted: dict) -> None:
        objects = [
            {
                "oid": o["oid"],
                "size": o["size"],
                "actions": {"upload": {"href": f"{self.state.url}/upload/{o['oid']}"}},
            }
            for o in wanted["objects"]
        ]
        self.answer(200, {"transfer": "basic", "objects": objects})

    def commit(self, repo: str, content: bytes) -> None:
        hub = self.state
        files = dict(hub.files(repo))
        for line in content.splitlines():
            value = json.loads(line)["value"]
            match json.loads(line)["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = hub.large[value["oid"]]
                    hub.lfs.add(value["path"])
                case "deletedFile":
                    files.pop(value["path"])
        hub.put(repo, files)
        oid = hub.commit_of(repo)
        self.answer(200, {
            "success": True, "commitOid": oid, "commitUrl": f"{hub.url}/{repo}/commit/{oid}",
            "hookOutput": "",
        })  # fmt: skip

    def resolve(self, repo: str, revision: str, name: str) -> None:
        hub = self.state
        if repo not in hub.repos:
            self.missing("RepoNotFound")
        elif revision not in ("main", hub.commit_of(repo)):
            self.missing("RevisionNotFound")
        elif name not in hub.files(repo):
            self.answer(
                404, {"error": "no entry"}, X_Error_Code="EntryNotFound",
                X_Repo_Commit=hub.commit_of(repo),
            )  # fmt: skip
        else:
            data = hub.files(repo)[name]
            self.answer(
                200, data, ETag=f'"{self.etag(name, data)}"', X_Repo_Commit=hub.commit_of(repo),
                Accept_Ranges="bytes",
            )  # fmt: skip
