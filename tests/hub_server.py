"""A stand-in for the Hugging Face hub: repositories in a folder, read and written by `huggingface_hub` over HTTP."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", "v1", COMMIT)


class Hub:
    """Repositories under `root`/models/OWNER/NAME and `root`/datasets/OWNER/NAME, all at one commit."""

    def __init__(self, root: Path):
        self.root, self.url = root, ""
        self.commits: list[dict[str, bytes]] = []  # the files of each upload
        self.requests: list[str] = []
        self.fail_uploads, self.private = False, None


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve a hub on a free port of this machine."""

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # clients may close early
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        path = unquote(urlsplit(self.path).path)
        if "/resolve/" in path:
            self._file(path)
        elif path.startswith("/api/"):
            self._api(path.removeprefix("/api/"))
        else:
            self._json({"error": "not found"}, 404)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(f"POST {self.path}")
        path = urlsplit(self.path).path
        if path.endswith("/repos/create"):
            repo = json.loads(body)
            self.hub.private = repo.get("private") or repo.get("visibility") == "private"
            self._json({"url": f"{self.hub.url}/{repo.get('organization') or 'me'}/{repo['name']}"})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif self.hub.fail_uploads:
            self._json({"error": "You do not have the rights"}, 403)
        elif "/preupload/" in path:
            files = [f["path"] for f in json.loads(body)["files"]]
            self._json({"files": [{"path": f, "uploadMode": "regular", "shouldIgnore": False} for f in files]})
        elif "/commit/" in path:
            lines = [json.loads(line) for line in body.splitlines()]
            files = {
                v["path"]: base64.b64decode(v["content"]) for v in (x["value"] for x in lines if x["key"] == "file")
            }
            self.hub.commits.append(files)
            self._json(
                {"commitUrl": f"{self.hub.url}/{'/'.join(path.split('/')[3:5])}/commit/{COMMIT}", "commitOid": COMMIT}
            )
        else:
            self._json({"error": "not found"}, 404)

    def _api(self, path: str) -> None:
        kind, owner, name, *rest = path.split("/")
        repo = self.hub.root / kind / owner / name
        revision = rest[1] if len(rest) > 1 else "main"
        if not repo.is_dir() or revision not in REVISIONS:
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif rest[:1] == ["tree"]:
            self._json([self._entry(repo, f) for f in sorted(repo.rglob("*")) if f.is_file()])
        else:
            files = [{"rfilename": str(f.relative_to(repo))} for f in sorted(repo.rglob("*")) if f.is_file()]
            self._json({"id": f"{owner}/{name}", "sha": COMMIT, "siblings": files, "private": False, "tags": []})

    def _entry(self, repo: Path, file: Path) -> dict[str, Any]:
        return {
            "type": "file",
            "path": str(file.relative_to(repo)),
            "size": file.stat().st_size,
            "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
        }

    def _file(self, path: str) -> None:
        repo, _, rest = path.strip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        folder = self.hub.root / (repo if repo.startswith("datasets/") else f"models/{repo}")
        file = folder / name
        if not folder.is_dir() or revision not in REVISIONS:
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif not file.is_file():
            self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            content = file.read_bytes()
            marks = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
            self._send(content, 200, marks | {"Content-Type": "application/octet-stream"})

    def _json(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json"} | (headers or {}))

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
