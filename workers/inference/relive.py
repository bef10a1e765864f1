"""Reliving: recorded runs of a model, executed again because keys and values were lost.

Each token that comes of it must be the recorded one. If it is not, this machine, its libraries or
its files are not what they were, and going on would mix two histories: the run stops.

Tokens of another provider are the exception, where the run went on elsewhere (engine/fallback.py).
They are facts: whoever waited for them has read them. So they are taken as recorded, whatever would
be drawn here, and the keys and values made here are those of what was said.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from lockstep.engine.errors import Diverged
from lockstep.engine.plan import Chunk, ModelPlan, Request
from lockstep.engine.restored import Again, Said
from lockstep.workers.inference.decoder import Decoder, Logits


class Draws(Protocol):
    """Whose tokens they are (`desk.Desk`)."""

    def draw_again(
        self, step: int, ticket: int, number: int, logits: Logits, place: int
    ) -> int | None:
        """The ``place``-th token of a sample; None: the logits are not finite."""

    def given_again(self, ticket: int, number: int, place: int, token: int) -> None:
        """The ``place``-th token of a sample is this one."""


def relive(
    past: Sequence[Again],
    requests: Mapping[int, Request],
    decoders: Mapping[int, Decoder],
    draws: Draws,
    note: Callable[[str], None],
    since: Sequence[int] = (),
) -> None:
    """Execute recorded runs again and compare their tokens.

    Args:
        past: In order.
        requests: By ticket, of every chunk.
        decoders: By model.
        draws: Draws the tokens.
        note: Told what is done, for people, if anything is.
        since: As in `InferenceSpec`: tokens of earlier steps are taken as recorded.

    Raises:
        Diverged: a token is not the recorded one. Step, ticket and both tokens are named.
    """
    steps = dict.fromkeys(again.step for again in past)
    if steps:
        note(f"executing {len(steps)} recorded steps again: the models' keys and values are gone")
        # So are the copies of the step that was under way. (Where nothing is executed again
        # nothing was held, and no copy was made.)
        for decoder in decoders.values():
            decoder.copies.forget()
    for again in past:
        given = bool(since) and again.step < since[again.model]
        for slot, logits in decoders[again.model].run(_plan(again, requests)):
            said = again.said.get(slot)
            if said is None:
                continue  # Nobody needs this row any more: its slot may hold anything.
            if given:
                draws.given_again(said.ticket, said.sample, said.place, said.token)
            else:
                _compare(again.step, said, logits, draws)


def _compare(step: int, said: Said, logits: Logits, draws: Draws) -> None:
    token = draws.draw_again(step, said.ticket, said.sample, logits, said.place)
    if token != said.token:
        raise Diverged(
            f"step {step}, ticket {said.ticket}: token {said.place} of the answer is "
            f"{'not finite' if token is None else token} when computed again, recorded is "
            f"{said.token}"
        )


def _plan(again: Again, requests: Mapping[int, Request]) -> ModelPlan:
    chunks = tuple(
        Chunk(
            ticket=c.ticket,
            slot=c.slot,
            start=c.start,
            tokens=requests[c.ticket].prompt[c.start : c.start + c.size],
            last=c.slot in again.said,
        )
        for c in again.chunks
    )
    return ModelPlan(
        again.model,
        copies=again.copies,
        chunks=chunks,
        decodes=again.decodes,
        lengths=again.lengths,
    )
