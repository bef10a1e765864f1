"""Services for HTTP clients: a `Serving` with ``--http``, its fleet, and raw requests."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import fleets
import tensorfolders
from serving import Serving

PATIENCE_S = 120  # Of a client: then the test fails.
FLEET = """
[fleet]
name = "web"
seed = 3
[models.small]
path = "MODEL"
providers = ["cpu"]
intra_op_threads = 1
rows_max = 8
tokens_max = 128
[models.words]
kind = "tensors"
path = "WORDS"
providers = ["cpu"]
intra_op_threads = 1
[agents.echo]
module = "GUESTS/echo.wasm"
input = "broadcast"
"""


class Reply:
    """What came back to a request."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.data = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def error(self) -> Any:
        """Of a refusal."""
        found = self.json["error"]
        assert sorted(found) == ["code", "message", "param", "type"]
        return found

    @property
    def events(self) -> list[Any]:
        """Of a stream that came to its end."""
        *lines, end = self.data.decode().strip().split("\n\n")
        assert end == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines]


class Web(Serving):
    """A service with a front end, at a port that the kernel chose; it stays over its lives."""

    def __init__(self, folder: Path, *args: str, text: str = FLEET) -> None:
        if "WORDS" in text:
            words = folder / "words"
            words.mkdir()
            text = text.replace("WORDS", str(tensorfolders.embedding(words)))
        where = () if "--http" in args else ("--http", "127.0.0.1:0")
        super().__init__(folder, fleets.fleet(folder, text), *where, *args)

    def start(self) -> Web:
        """Start it, until it takes calls."""
        super().start()
        return self

    @property
    def url(self) -> str:
        """Of the API."""
        return f"{self.front['address']}/v1"

    @property
    def front(self) -> Any:
        """What the status says of the front end."""
        return self.status()["http"]

    def connection(self) -> http.client.HTTPConnection:
        """A connection that nothing was said on."""
        return http.client.HTTPConnection(
            self.front["address"].removeprefix("http://"), timeout=PATIENCE_S
        )

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """A request as it is; ``headers`` with underscores for hyphens."""
        connection = self.connection()
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            return Reply(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.request("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Reply:
        """A request with a JSON body."""
        data = json.dumps(body).encode()
        return self.request("POST", path, data, Content_Type="application/json", **headers)

    def chat(self, text: str, model: str = "small", **more: Any) -> Reply:
        said = [{"role": "user", "content": text}]
        return self.post("/v1/chat/completions", {"model": model, "messages": said, **more})
