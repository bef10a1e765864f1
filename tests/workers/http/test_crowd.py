"""Many clients at once: nobody is refused, nobody is overtaken, and their day can be played again.

What is fair is a matter of order, not of a clock: calls become items in the order in which they
come, each item's requests get tickets in the order of the items, and rows in the order of the
tickets. So a call waits for those that came before it, and for no other.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import fleets
import openai
import rawhttp
from crowd import HTTP, WEB, address_of
from prometheus_client.parser import text_string_to_metric_families
from serving import Serving

from lockstep.bench.callers import all_at_once
from lockstep.workers import verify
from lockstep.workers.export import export
from lockstep.workers.journal_view import frames

CLIENTS, CALLS = 64, 2


def chat(client: openai.OpenAI, number: int, call: int) -> str:
    """One call: streamed or not, to the model or to the fleet."""
    text = f"client {number} call {call}"
    said: Any = [{"role": "user", "content": text}]
    if number % 4 == 3:
        item = {"role": "user", "content": json.dumps({"id": f"{number}.{call}", "text": text})}
        answer = client.chat.completions.create(model="fleet:web", messages=[item])
    elif number % 2:
        pieces = client.chat.completions.create(
            model="tiny", messages=said, max_tokens=4, seed=number, stream=True
        )
        return "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)
    else:
        answer = client.chat.completions.create(
            model="tiny", messages=said, max_tokens=4, seed=number
        )
    return str(answer.choices[0].message.content)


def test_sixty_four_clients_are_served_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    args = (*HTTP, "--client-max", "256")
    took_s: list[float] = []
    with Serving(tmp_path, fleets.fleet(tmp_path, WEB), *args).start() as service:
        base = f"{address_of(service)}/v1"
        with openai.OpenAI(base_url=base, api_key="none", max_retries=0) as client:

            def body(number: int) -> None:
                for call in range(CALLS):
                    began_s = time.monotonic()
                    chat(client, number, call)
                    took_s.append(time.monotonic() - began_s)

            all_at_once(CLIENTS, body)
        assert service.status()["waiting"] == 0
        _check_metrics(service)
        assert service.drain() == 0
    took_s.sort()
    print(f"\n{CLIENTS} clients: p50 {median(took_s):.3f} s, p99 {took_s[-2]:.3f} s")
    assert len(took_s) == CLIENTS * CALLS
    run = service.state / "runs" / "web-1"
    _check_order(run)
    assert verify(run).equal


def metrics(address: str) -> Counter[str]:
    """What is scraped: sums over all labels, by name."""
    reply = rawhttp.ask(address, rawhttp.request("/metrics", method="GET"))
    assert reply.status == 200 and reply.headers["content-type"].startswith("text/plain; version")
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(reply.body.decode()):
        for sample in family.samples:
            found[sample.name] += int(sample.value)
            assert sample.labels.get("outcome", "ok") == "ok"
    return found


def _check_metrics(service: Serving) -> None:
    address = address_of(service)
    found = metrics(address)
    assert found["lockstep_up"] == found["lockstep_ready"] == 1
    assert found["lockstep_requests_total"] == CLIENTS * CALLS
    assert found["lockstep_requests_open"] == found["lockstep_items_waiting"] == 0
    assert found["lockstep_items_answered_total"] == CLIENTS * CALLS
    assert found["lockstep_e2e_request_latency_seconds_count"] == CLIENTS * CALLS
    assert found["lockstep_time_to_first_token_seconds_count"] >= CLIENTS * CALLS // 4
    assert found["lockstep_kv_slots"] == 8
    told = found["lockstep_request_generation_tokens_sum"]
    assert told >= CLIENTS * CALLS * 3 // 4
    # The run tells of itself now and then.
    service.wait(lambda: metrics(address)["lockstep_generation_tokens_total"] == told)


def _check_order(run: Path) -> None:
    found = list(export(frames(run)))
    entered = [one["item"] for one in found if one["kind"] == "ADMIT"]
    tickets = [one for one in found if one["kind"] == "TICKET"]
    steps = [one["slots"] for one in found if one["kind"] == "STEP"]
    rows = [slot["ticket"] for slots in steps for slot in slots if slot["op"] == "admit"]
    assert entered == list(range(1, CLIENTS * CALLS + 1))
    assert [one["ticket"] for one in tickets] == rows == list(range(1, len(tickets) + 1))
    asked = [one["item"] for one in tickets]
    assert asked == sorted(asked) and len(asked) == CLIENTS * CALLS * 3 // 4
