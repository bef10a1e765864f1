"""A small fleet that is served over HTTP, and many who use it at once."""

from __future__ import annotations

import psutil
from serving import Serving

HTTP = ("--http", "127.0.0.1:0")
# Every item has to be seen by one agent; a model for calls; deaths are part of the game.
WEB = """
[fleet]
name = "web"
seed = 3
[recovery]
restarts_max = 1000
[models.tiny]
path = "MODEL"
providers = ["cpu"]
intra_op_threads = 1
rows_max = 8
tokens_max = 512
[agents.echo]
module = "GUESTS/echo.wasm"
input = "broadcast"
"""


def address_of(service: Serving) -> str:
    return str(service.status()["http"]["address"])


def front_of(service: Serving) -> psutil.Process:
    """The process of the front end."""
    return psutil.Process(service.status()["http"]["pid"])
