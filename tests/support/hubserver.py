"""A hub on loopback: the protocol of model pulls over real sockets, with faults to order.

Two servers, as the real one has: the hub (the list of files, redirects) and the store of large
files on another host, whose addresses are signed. Faults are taken from `Server.faults` one by one,
each by the next answer that it fits.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LATER = "89abcdef0123456789abcdef0123456789abcdef"
TOKEN = "hf_aTokenThatMayRead"
LARGE = (".onnx", "_data", ".data", "tokenizer.json")  # Ends of names in large-file storage.
SIGNATURE = "sIgNaTuRe"


@dataclass
class Fault:
    """What becomes of an answer: ``kind`` is "cut" (after ``at`` bytes), "hang" (there, until
    `Server.release`), "status" (``at``), "deaf" (no ranges), "wrong" (one bit of byte ``at``) or
    "long" (a byte too many)."""

    kind: str
    at: int = 0
    path: str = ""
    times: int = 1


@dataclass
class Asked:
    """A request that came."""

    host: str
    path: str
    range: str
    token: str
    agent: str


@dataclass
class Server:
    """The state of both servers; files may be changed while they run."""

    files: dict[str, bytes]
    repository: str = "acme/tiny"
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT, "v1": COMMIT})
    gated: bool = False
    private: bool = False
    lies: dict[str, str] = field(default_factory=dict)  # sha256 that the list says, by path.
    sizes: dict[str, int] = field(default_factory=dict)  # Sizes that it says, by path.
    faults: list[Fault] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    store: str = ""
    hung: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, path: str, kinds: tuple[str, ...]) -> Fault | None:
        """The next fault for a path, used up, if it is of such a kind."""
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.path in ("", path):
                    if fault.kind not in kinds:
                        return None
                    fault.times -= 1
                    return fault
        return None

    def gets(self, path: str) -> list[str]:
        """``Range`` headers of the requests for the bytes of a file, in order."""
        name = f"/store/{path}" if path.endswith(LARGE) else f"/resolve/{COMMIT}/{path}"
        return [one.range for one in self.asked if one.path.endswith(name)]


@contextmanager
def serving(files: dict[str, bytes], **more: Any) -> Iterator[Server]:
    """Both servers, until the end of the ``with``."""
    state = Server(files, **more)
    servers = [_server(state, _Hub), _server(state, _Store)]
    state.url = f"http://127.0.0.1:{servers[0].server_port}"
    state.store = f"http://localhost:{servers[1].server_port}"
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield state
    finally:
        state.release.set()
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = False  # Joined when the server closes.
    state: Server

    def handle_error(self, *_: Any) -> None:
        """A client that was killed is no error of ours."""


def _server(state: Server, handler: type[BaseHTTPRequestHandler]) -> _Quiet:
    server = _Quiet(("127.0.0.1", 0), handler)
    server.state = state
    return server


class _Base(BaseHTTPRequestHandler):
    # HTTP/1.0: one answer per connection, so that a cut is one.
    server: _Quiet
    host = ""

    def log_message(self, *_: Any) -> None:
        """Nothing on standard error."""

    def do_GET(self) -> None:
        """Note it, answer it."""
        head = {key: self.headers.get(key, "") for key in ("Range", "Authorization", "User-Agent")}
        path = unquote(urlsplit(self.path).path)
        self.server.state.asked.append(Asked(self.host, path, *head.values()))
        self.answer(path)

    def answer(self, path: str) -> None:
        raise NotImplementedError

    def refuse(self, status: int, code: str = "", message: str = "") -> None:
        """An answer without a body, as the hub gives them."""
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if message:
            self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, path: str, data: bytes, **headers: str) -> None:
        """Bytes of a file, with what is to go wrong with them."""
        state = self.server.state
        if fault := state.fault(path, ("status",)):
            return self.refuse(fault.at, message="as ordered")
        if fault := state.fault(path, ("wrong",)):
            data = data[: fault.at] + bytes([data[fault.at] ^ 1]) + data[fault.at + 1 :]
        if state.fault(path, ("long",)):
            data += b"!"
        first, wanted = 0, self.headers.get("Range", "")
        if wanted and not state.fault(path, ("deaf",)):
            first = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        fault = state.fault(path, ("cut", "hang"))
        self.wfile.write(data[first : max(fault.at, first)] if fault else data[first:])
        if fault and fault.kind == "hang":
            self.wfile.flush()
            state.hung.set()
            state.release.wait()
        return None


class _Hub(_Base):
    host = "hub"

    def answer(self, path: str) -> None:
        """``/api/models/...`` and ``/.../resolve/...``."""
        state = self.server.state
        token = self.headers.get("Authorization", "")
        if token and token != f"Bearer {TOKEN}" and not token.startswith("Basic "):
            return self.refuse(401, message="Invalid credentials in Authorization header")
        if state.private and not token:
            return self.refuse(401, "RepoNotFound", "Repository not found")
        api, name = f"/api/models/{state.repository}", f"/{state.repository}/resolve/"
        if path == f"{api}/auth-check":
            refused = state.gated and not token
            return self.refuse(401, "GatedRepo", "Restricted") if refused else self.refuse(200)
        if path == api or path.startswith(f"{api}/revision/"):
            return self.list(path.removeprefix(api).removeprefix("/revision/") or "main")
        if path.startswith(name):
            return self.resolve(*path.removeprefix(name).split("/", 1), token)
        return self.refuse(401, "RepoNotFound", "Repository not found")

    def list(self, revision: str) -> None:
        state = self.server.state
        if state.fault("list", ("hang",)):
            state.release.wait()
            return None
        commit = {**state.revisions, COMMIT: COMMIT, LATER: LATER}.get(revision)
        if commit is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        body = json.dumps(
            {
                "id": state.repository,
                "sha": commit,
                "gated": "auto" if state.gated else False,
                "siblings": [self.sibling(path, data) for path, data in state.files.items()],
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None

    def sibling(self, path: str, data: bytes) -> dict[str, Any]:
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        size = self.server.state.sizes.get(path, len(data))
        found: dict[str, Any] = {"rfilename": path, "size": size, "blobId": blob}
        if path.endswith(LARGE):
            sha256 = self.server.state.lies.get(path) or hashlib.sha256(data).hexdigest()
            found["lfs"] = {"size": len(data), "sha256": sha256, "pointerSize": 134}
        return found

    def resolve(self, commit: str, path: str, token: str) -> None:
        state = self.server.state
        if state.gated and not token:
            return self.refuse(401, "GatedRepo", "Access to model is restricted")
        if path not in state.files or commit != COMMIT:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        data = state.files[path]
        if not path.endswith(LARGE):
            return self.send(path, data, X_Repo_Commit=commit)
        self.send_response(302)
        self.send_header("Location", f"{state.store}/store/{quote(path)}?X-Signature={SIGNATURE}")
        self.send_header("X-Repo-Commit", commit)
        self.send_header("X-Linked-Size", str(len(data)))
        self.send_header("X-Linked-Etag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Xet-Hash", hashlib.sha256(b"xet" + data).hexdigest())
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None


class _Store(_Base):
    host = "store"

    def answer(self, path: str) -> None:
        """Large files, to who has a signature."""
        query = parse_qs(urlsplit(self.path).query)
        if query.get("X-Signature") != [SIGNATURE]:
            return self.refuse(403)
        name = path.removeprefix("/store/")
        return self.send(name, self.server.state.files[name])
