"""Reliving: recorded runs of a model, executed again because keys and values were lost.

Each token that comes of it must be the recorded one. If it is not, this machine, its libraries or
its files are not what they were, and going on would mix two histories: the run stops.
"""

from collections.abc import Callable, Mapping, Sequence

from lockstep.engine.errors import Diverged
from lockstep.engine.plan import Chunk, ModelPlan, Request
from lockstep.engine.restored import Again
from lockstep.workers.inference.decoder import Decoder, Logits

Choose = Callable[[int, int, int, Logits, int], int | None]


def relive(
    past: Sequence[Again],
    requests: Mapping[int, Request],
    decoders: Mapping[int, Decoder],
    choose: Choose,
    note: Callable[[str], None],
) -> None:
    """Execute recorded runs again and compare their tokens.

    Args:
        past: In order.
        requests: By ticket, of every chunk.
        decoders: By model.
        choose: Step, ticket, sample, logits and the token's place -> token; None: not finite.
        note: Told what is done, for people, if anything is.

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
        for slot, logits in decoders[again.model].run(_plan(again, requests)):
            said = again.said.get(slot)
            if said is None:
                continue  # Nobody needs this row any more: its slot may hold anything.
            token = choose(again.step, said.ticket, said.sample, logits, said.place)
            if token != said.token:
                raise Diverged(
                    f"step {again.step}, ticket {said.ticket}: token {said.place} of the answer is "
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
