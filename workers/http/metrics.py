"""Metrics of a service for Prometheus: what its status says, and what the front end saw itself.

The front end calls `Observations` from its one thread; `exposition` is called for each scrape.
"""

from typing import Any


class Observations:
    """What happened to the calls of this front end since it was started.

    ``route`` is one of "chat", "completions", "embeddings", "fleet"; ``model`` a name of the fleet
    (``fleet:NAME`` for route "fleet"), never text of a client that was not checked.
    """

    def asked(self, route: str, model: str) -> None:
        """A call with a checked body was handed to the service."""

    def first_token(self, route: str, model: str, seconds: float) -> None:
        """The first piece of a streamed answer was written, so long after its request came."""

    def done(
        self,
        route: str,
        model: str,
        outcome: str,
        seconds: float,
        prompt_tokens: int = 0,
        cached_tokens: int = 0,
        completion_tokens: int = 0,
        first_s: float | None = None,
    ) -> None:
        """A call is over; called once for each `asked`.

        Args:
            route: As above.
            model: As above.
            outcome: "ok", "refused" (4xx), "busy" (429), "failed" (5xx), "vanished" (the client).
            seconds: From its request to the end of its answer.
            prompt_tokens: As in the answer's usage.
            cached_tokens: Of them, those that were not computed.
            completion_tokens: Likewise, generated.
            first_s: Of a streamed answer, as given to `first_token`: time per token is (seconds -
                first_s) / (completion_tokens - 1). None: it was not streamed, or had no token.
        """

    def turned_away(self, status: int) -> None:
        """A request was answered with this status before it was a call (401, 404, 413, ...)."""


def exposition(status: dict[str, Any], observed: Observations) -> bytes:
    """The text of ``/metrics``, as `CONTENT_TYPE`.

    Args:
        status: The answer of the control socket to ``{"do": "status"}``; empty: the service does
            not answer now.
        observed: Of this front end.
    """
    raise NotImplementedError


CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
