"""Many clients at once: nobody is refused, nobody is overtaken, and their day can be played again.

What is fair is a matter of order, not of a clock: calls become items in the order in which they
come, each item's requests get tickets in the order of the items, and rows in the order of the
tickets. So a call waits for those that came before it, and for no other.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import fleets
import openai
from crowd import HTTP, WEB, address_of, all_at_once
from serving import Serving

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
        assert service.drain() == 0
    took_s.sort()
    print(f"\n{CLIENTS} clients: p50 {median(took_s):.3f} s, p99 {took_s[-2]:.3f} s")
    assert len(took_s) == CLIENTS * CALLS
    run = service.state / "runs" / "web-1"
    _check_order(run)
    assert verify(run).equal


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
