"""What is offered: models and fleet, as the service said a moment ago."""

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import Any

from lockstep.engine.settings import nearest
from lockstep.workers.http.control import Control
from lockstep.workers.http.problems import Problem

FRESH_S = 1.0
FLEET = "fleet:"  # Before the name of a fleet, it is a model.
BODY_BYTES_MIN = 1 << 20
ESCAPES = 6  # Bytes of JSON that one byte of text may take.


@dataclass(frozen=True, slots=True)
class Offered:
    """What is served now.

    Attributes:
        fleet: Its name; empty: it takes no items.
        models: By name; each as workers/service/offers.py says.
        body_bytes_max: Of a request: what could fit a record.
    """

    fleet: str = ""
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    body_bytes_max: int = BODY_BYTES_MIN

    def names(self) -> list[str]:
        """Of everything that can be asked as a model."""
        return [*self.models, *([FLEET + self.fleet] if self.fleet else [])]

    def find(self, name: str, kind: str) -> dict[str, Any]:
        """A model of the fleet.

        Raises:
            Problem: there is none of the name, or it is of another kind.
        """
        model = self.models.get(name)
        if model is None and name in self.names():
            text = f"model {name!r} is a fleet: only /v1/chat/completions serves it"
            raise Problem(400, text, param="model", code="model_not_supported")
        if model is None:
            raise self.unknown(name)
        if model["kind"] != kind:
            what = "takes texts to embed" if kind == "decoder" else "generates text"
            text = f"model {name!r} {what}: another route serves it"
            raise Problem(400, text, param="model", code="model_not_supported")
        return model

    def unknown(self, name: str) -> Problem:
        """What is said of a name that nobody has."""
        text = f"model {name!r:.80} does not exist{nearest(name[:80], self.names())}"
        return Problem(404, text, param="model", code="model_not_found")


class Market:
    """Asks for what is offered, not more often than it may change."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._offered = Offered()
        self._asked_s = -math.inf
        self._asking: asyncio.Future[dict[str, Any]] | None = None

    async def status(self) -> dict[str, Any]:
        """What the service says of itself. One asks for all: a crowd takes one connection of it.

        Raises:
            Problem: the service cannot be asked.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._control.status())
            self._asking.add_done_callback(_heard)
        return await asyncio.shield(self._asking)

    async def offered(self) -> Offered:
        """What is served now.

        Raises:
            Problem: the service cannot be asked, or serves nothing yet.
        """
        if time.monotonic() - self._asked_s >= FRESH_S:
            self._offered = offered_of(await self.status())
            if self._offered.names():
                self._asked_s = time.monotonic()
        if not self._offered.names():
            raise Problem(503, "the service is starting", code="starting", retry_s=1.0)
        return self._offered


def _heard(asking: "asyncio.Future[dict[str, Any]]") -> None:
    """Somebody may have asked, and waited for it no more."""
    if not asking.cancelled():
        asking.exception()


def offered_of(status: dict[str, Any]) -> Offered:
    """What a status says of it."""
    found = status.get("offers") or {}
    if not found:
        return Offered()
    models = {model["name"]: model for model in found["models"]}
    return Offered(found["fleet"], models, max(BODY_BYTES_MIN, ESCAPES * found["record_bytes_max"]))
