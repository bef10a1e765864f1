"""Metrics of a service for Prometheus: what its status says, and what the front end saw itself.

The front end calls `Observations` from its one thread; `exposition` is called for each scrape. The
names are vLLM's where there is one, with ``lockstep_`` in front; docs/operations.md has the table.
Labels take their values from the fleet, never from a client, so that they stay few.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from lockstep.engine.compiled import is_compiled
from lockstep.engine.version import VERSION

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FIRST_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
           10.0, 20.0, 40.0, 80.0)  # fmt: skip
TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0,
           2.5)  # fmt: skip
WHOLE_S = (0.01, 0.03, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0,
           50.0, 60.0, 120.0, 240.0, 480.0)  # fmt: skip
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
HISTOGRAMS: dict[str, tuple[str, Sequence[float]]] = {
    "time_to_first_token_seconds": ("Until the first piece of a streamed answer.", FIRST_S),
    "request_time_per_output_token_seconds": (
        "Between tokens of a streamed answer, in the mean.", TOKEN_S,
    ),
    "e2e_request_latency_seconds": ("From a request to the end of its answer.", WHOLE_S),
    "request_prompt_tokens": ("Of a prompt.", TOKENS),
    "request_generation_tokens": ("Of an answer.", TOKENS),
}  # fmt: skip
STATES = ("starting", "live", "backoff", "ended", "stopped", "stuck")


class Histogram:
    """How often a value fell where.

    Args:
        bounds: Upper ones of its buckets, rising; one without an end is added.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def take(self, value: float) -> None:
        """One more value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def told(self) -> tuple[list[tuple[str, float]], float]:
        """Buckets as the format has them, each with those below it; the sum."""
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True)), self._sum


class Observations:
    """What happened to the calls of this front end since it was started.

    ``route`` is one of "chat", "completions", "embeddings", "fleet"; ``model`` a name of the fleet
    (``fleet:NAME`` for route "fleet"), never text of a client that was not checked.
    """

    def __init__(self) -> None:
        self._asked: Counter[tuple[str, str]] = Counter()
        self._done: Counter[tuple[str, str, str]] = Counter()
        self._turned_away: Counter[int] = Counter()
        self._cached: Counter[str] = Counter()
        self._histograms: dict[str, dict[str, Histogram]] = {name: {} for name in HISTOGRAMS}

    def asked(self, route: str, model: str) -> None:
        """A call with a checked body was handed to the service."""
        self._asked[route, model] += 1

    def first_token(self, route: str, model: str, seconds: float) -> None:
        """The first piece of a streamed answer was written, so long after its request came."""
        self._take("time_to_first_token_seconds", model, seconds)

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
        self._done[route, model, outcome] += 1
        if outcome != "ok":
            return  # How soon somebody was refused says nothing of how long answers take.
        self._take("e2e_request_latency_seconds", model, seconds)
        self._take("request_prompt_tokens", model, prompt_tokens)
        self._take("request_generation_tokens", model, completion_tokens)
        self._cached[model] += cached_tokens
        if first_s is not None and completion_tokens > 1:
            each_s = (seconds - first_s) / (completion_tokens - 1)
            self._take("request_time_per_output_token_seconds", model, each_s)

    def turned_away(self, status: int) -> None:
        """A request was answered with this status, an error, whether it was a call or not."""
        self._turned_away[status] += 1

    def collect(self) -> Iterator[Metric]:
        """As a collector of prometheus_client."""
        yield _counter(
            "requests", "Calls that are over.", ("route", "model", "outcome"), self._done.items()
        )
        open_ = self._asked.copy()
        for (route, model, _), count in self._done.items():
            open_[route, model] -= count
        yield _gauge("requests_open", "Calls that go on.", ("route", "model"), open_.items())
        yield _counter(
            "http_errors", "Answers that were errors, to calls and to others.", ("status",),
            ((str(status), count) for status, count in self._turned_away.items()),
        )  # fmt: skip
        yield _counter(
            "request_cached_tokens", "Prompt tokens that were not computed again.", ("model",),
            self._cached.items(),
        )  # fmt: skip
        for name, (text, _) in HISTOGRAMS.items():
            family = HistogramMetricFamily(f"lockstep_{name}", text, labels=("model",))
            for model, histogram in self._histograms[name].items():
                family.add_metric((model,), *histogram.told())
            yield family

    def _take(self, name: str, model: str, value: float) -> None:
        of_model = self._histograms[name]
        if model not in of_model:
            of_model[model] = Histogram(HISTOGRAMS[name][1])
        of_model[model].take(value)


class Status:
    """A collector of what the control socket says.

    Args:
        status: Its answer; empty: the service does not answer.
    """

    def __init__(self, status: Mapping[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """As a collector of prometheus_client."""
        build = {"version": VERSION, "compiled": str(is_compiled()).lower()}
        yield InfoMetricFamily("lockstep_build", "What serves.", build)
        yield _one("up", "Whether the service answers.", bool(self._status))
        if self._status:
            yield from self._service()
            yield from self._done()
            yield from self._load()

    def _service(self) -> Iterator[Metric]:
        said = self._status
        yield _one("ready", "Whether it takes items.", said["state"] == "ready")
        yield _one("uptime_seconds", "Since its start.", said["uptime_s"])
        yield _one("items_waiting", "Unanswered items.", said["waiting"])
        yield _one("items_waiting_max", "More are refused.", said["waiting_max"])
        for name in ("accepted", "answered"):
            yield _total(f"items_{name}", f"Items {name}.", said[name])
        found = Counter(run["state"] for run in said["runs"])
        states = ((state, found[state]) for state in STATES)
        yield _gauge("runs", "Runs that are kept, and unfinished ones.", ("state",), states)
        yield _total("runs_begun", "New runs.", said["runs_begun"])

    def _done(self) -> Iterator[Metric]:
        done = self._status["done"]
        yield _total("prompt_tokens", "Tokens of prompts, not of refused ones.", done["tokens_in"])
        yield _total("generation_tokens", "Tokens that were generated.", done["tokens"])
        yield _total("steps", "Steps of the models.", done["steps"])
        yield _total("turns", "Turns of agents.", done["turns"])
        yield _counter(
            "restarts", "Processes that were brought back.", ("process",),
            (("supervisor", done["supervisor_restarts"]), ("child", done["restarts"]),
             ("front", self._status["http"]["restarts"])),
        )  # fmt: skip

    def _load(self) -> Iterator[Metric]:
        family = InfoMetricFamily(
            "lockstep_model", "Models, and what runs them.", labels=("model",)
        )
        for model in (self._status["offers"] or {"models": ()})["models"]:
            info = {key: model[key] for key in ("class", "fingerprint")}
            family.add_metric((model["name"],), {"provider": model["provider"][0], **info})
        yield family
        load = self._status["load"]
        if not load:
            return
        rows, most = load["rows"], load["rows_max"]
        waiting = load["requests_waiting"]
        yield _one("num_requests_running", "Rows of the batch that compute.", rows)
        yield _one("num_requests_waiting", "Requests that wait for a row.", waiting)
        yield _one("kv_slots", "Slots for keys and values that can compute.", most)
        yield _one("kv_slots_used", "Of them, those that do.", rows)
        yield _one("kv_cache_usage_perc", "Share of them that do, 0 to 1.", rows / (most or 1))
        yield _one("generation_tokens_per_second", "Of late.", load["tokens_per_s"])
        yield _counter(
            "agent_stall_seconds", "For which the models waited for an agent, in this run.",
            ("agent",), load["stall_s"].items(),
        )  # fmt: skip


def exposition(status: dict[str, Any], observed: Observations) -> bytes:
    """The text of ``/metrics``, as `CONTENT_TYPE`.

    Args:
        status: The answer of the control socket to ``{"do": "status"}``; empty: the service does
            not answer now.
        observed: Of this front end.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Status(status))
    registry.register(observed)
    text: bytes = generate_latest(registry)
    return text


Values = Iterable[tuple[Any, float]]  # Labels, or the only one, and a value.


def _one(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"lockstep_{name}", text, value=float(value))


def _total(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"lockstep_{name}", text, value=value)


def _gauge(name: str, text: str, labels: Sequence[str], values: Values) -> Metric:
    return _labelled(GaugeMetricFamily(f"lockstep_{name}", text, labels=labels), values)


def _counter(name: str, text: str, labels: Sequence[str], values: Values) -> Metric:
    return _labelled(CounterMetricFamily(f"lockstep_{name}", text, labels=labels), values)


def _labelled(family: Any, values: Values) -> Metric:
    for labels, value in values:
        family.add_metric((labels,) if isinstance(labels, str) else labels, value)
    found: Metric = family
    return found
