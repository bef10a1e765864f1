"""A guest made before the fork, with its instance, is the one that its process would make."""

from types import ModuleType

import pytest
import wasmtime

from lockstep.engine.record import Kind, Outcome
from lockstep.workers.agent.modules import starts
from lockstep.workers.agent.process import agent_main, prepared

pytestmark = pytest.mark.usefixtures("crossings")

TABLE = "(table 300 funcref) (elem (i32.const 7) func 0)"
START = "(func $first) (start $first)"


@pytest.mark.parametrize("data", [0, 40, 60_000])
@pytest.mark.parametrize("more", ["", TABLE])
def test_its_turns_and_their_fuel_are_the_same(h: ModuleType, data: int, more: str) -> None:
    say = f"(drop {h.turn_call(out=0, out_len=40)})" * 2
    record = h.encode(Kind.SEND, b"abcdefgh", peer=1)
    source = h.blocking(say, record + bytes(data)).replace("(func (exp", f"{more} (func (exp")
    spec = h.spec(h.compiled(source))
    channel = h.ScriptedChannel(lambda turn: h.item(1, b"x"))
    channel.played.status = agent_main(spec, channel, guest=prepared(spec, instance=True))
    assert channel.played == h.play(source, [h.item(1, b"x")] * 9)
    assert len(channel.played.turns) == 3
    published = spec.fuel_per_step > 0 and data > 1000  # While it is made: its process's to do.
    assert prepared(spec).instantiate() != published


@pytest.mark.parametrize(
    ("limits", "more"), [({"memory_bytes_max": 65536}, ""), ({"table_elements_max": 299}, TABLE)]
)
def test_what_is_refused_is_refused_in_the_process_of_the_agent(
    h: ModuleType, limits: dict[str, int], more: str
) -> None:
    source = h.blocking("nop").replace("(func (exp", f"{more} (func (exp")
    spec = h.spec(h.compiled(source), **limits)
    assert not prepared(spec).instantiate()
    channel = h.ScriptedChannel(lambda turn: None)
    channel.played.status = agent_main(spec, channel, guest=prepared(spec, instance=True))
    assert channel.played == h.play(source, **limits)
    assert [turn.outcome for turn in channel.played.turns] == [Outcome.OVER_LIMIT]


def test_code_that_runs_at_once_is_seen_in_the_bytes_of_its_module(h: ModuleType) -> None:
    plain = bytes(wasmtime.wat2wasm(h.blocking("nop")))
    starting = bytes(wasmtime.wat2wasm(h.blocking("nop").replace("(func (", START + " (func (")))
    assert not starts(plain)
    assert starts(starting)
    assert starts(plain[:-1])  # Of what cannot be read nothing is known.
