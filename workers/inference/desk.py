"""The desk: requests that are not answered yet, from the asking record to the answering one.

It decides nothing: the planner says which row runs, the decoder gives its logits; here the row
gets its token, drawn by name (rule 14), and in the end its answer. A row is a sample of a ticket;
their answers go back together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lockstep.engine import keyed
from lockstep.engine.errors import LockstepBug, RequestRejected
from lockstep.engine.plan import GOOD_FINISHES, Ended, Outcome, Request
from lockstep.engine.record import (
    FLAG_RAW,
    HEADER_BYTES,
    Record,
)
from lockstep.engine.restored import Kept, Score
from lockstep.engine.settings import nearest
from lockstep.engine.version import ANSWERS, PROPOSALS
from lockstep.engine.wire import FromEngine
from lockstep.workers.inference import first_sampler
from lockstep.workers.inference.exact import Floats32
from lockstep.workers.inference.fields import wrong
from lockstep.workers.inference.loaded import LoadedModel
from lockstep.workers.inference.logprobs import Naming, Scored, scores, spelled, total_of
from lockstep.workers.inference.request import InferRequest, parse_infer, tokens_out
from lockstep.workers.inference.result import (
    Choice,
    encode_answer,
    encode_result,
    result_bytes_least,
)
from lockstep.workers.inference.sample import Sample, Terms
from lockstep.workers.inference.sampler import draw, likeliest
from lockstep.workers.inference.sampling import Sampling
from lockstep.workers.inference.shortlist import Row, Shortlist, enough
from lockstep.workers.inference.spec import InferenceSpec

ScoreRow = tuple[int, int, int, int, int, int]  # Fields of RESULT_SLOT, operation SCORE.


@dataclass(slots=True)
class _Open:
    """A ticket that is not answered yet.

    Attributes:
        hit: Tokens of its prompt that its first row found when it was admitted.
        computed: Tokens of its prompt that were prefilled.
        samples: By number, those that have begun.
        again: Likewise, of recorded steps that are executed again.
    """

    agent: int
    ordinal: int
    record: Record
    request: InferRequest
    model: int
    prompt_tokens: int
    terms: Terms
    hit: int = 0
    computed: int = 0
    samples: dict[int, Sample] = field(default_factory=dict)
    again: dict[int, Sample] = field(default_factory=dict)

    def sample(self, number: int) -> Sample:
        found = self.samples.get(number)
        if found is None:
            found = self.samples[number] = Sample(self.terms)
        return found


def sampling_key(seed: int, agent: str) -> bytes:
    """Key of an agent's draws: its name, never a ticket or a row (rule 14)."""
    return keyed.key(seed, "sampling", agent)


class Desk:
    """Open tickets, by number.

    Attributes:
        tokens: That were made so far, for display.
    """

    def __init__(self, spec: InferenceSpec, models: Mapping[int, LoadedModel]) -> None:
        self._spec = spec
        self._says = bool(spec.logic_flags & ANSWERS)
        self._proposes = bool(spec.logic_flags & PROPOSALS)
        self._drawn = draw if self._proposes else first_sampler.draw
        self._total = total_of if self._proposes else first_sampler.total_of
        self._models = models
        self._names = [model.name for model in spec.models]
        self._keys: dict[tuple[int, int], bytes] = {}  # By seed and agent.
        self._open: dict[int, _Open] = {}
        self._scores: list[ScoreRow] = []
        self.tokens = spec.tokens

    # -- in -------------------------------------------------------------------------------------

    def take(self, record: Record, ticket: int, agent: int, due: int, ordinal: int) -> Request:
        """The request in a record, open from now on; what cannot be served says so."""
        refusal, prompt, model = "", [], record.peer
        request = InferRequest(raw=bool(record.flags & FLAG_RAW))
        wanted = 1
        try:
            request = parse_infer(record.payload, request.raw, old=not self._says)
            model = self._model(request, record)
            loaded = self._models[model]
            request = self._with_defaults(request, loaded)
            prompt = loaded.text.prompt_ids(request)
            wanted = tokens_out(request, len(prompt), loaded.tokens_max)
            self._check(request, loaded, wanted)
        except RequestRejected as error:
            refusal = error.said(self._spec.logic_flags)
        terms = self._terms(request.sampling, self._models[model], prompt, wanted)
        if request.ordinal is not None:
            ordinal = request.ordinal
        self._open[ticket] = _Open(agent, ordinal, record, request, model, len(prompt), terms)
        conversation = request.conversation
        named = f"item {record.item}" if conversation is None else f"named {conversation}"
        return Request(
            ticket=ticket,
            due=due,
            model=model,
            conversation=(agent, named),
            prompt=tuple(prompt),
            tokens_out_max=wanted,
            stop=frozenset(terms.ends),
            priority=request.priority,
            timeout_steps=request.timeout_steps,
            refusal=refusal,
            samples=request.sampling.n,
        )

    def _model(self, request: InferRequest, record: Record) -> int:
        if request.model is None:
            return record.peer
        if request.model not in self._names:
            hint = nearest(request.model, self._names)
            raise wrong("model: ", request.model, f" is not in the fleet{hint}", None)
        return self._names.index(request.model)

    def _with_defaults(self, request: InferRequest, loaded: LoadedModel) -> InferRequest:
        if not request.sampling.model_defaults:
            return request
        return replace(request, sampling=loaded.generation.over(request.sampling))

    def _check(self, request: InferRequest, loaded: LoadedModel, wanted: int) -> None:
        """What parameters must be beside this model, this prompt and this fleet.

        Raises:
            RequestRejected: an id beyond the vocabulary, or an answer that cannot fit a record.
        """
        sampling = request.sampling
        for token in sampling.stop_token_ids:
            if token >= loaded.vocab:
                raise RequestRejected(
                    f"stop_token_ids: {token}, the model has ids of 0 to {loaded.vocab - 1}"
                )
        if sampling.min_tokens > wanted:
            raise RequestRejected(
                f"min_tokens: {sampling.min_tokens}, more than the {wanted} tokens of max_tokens"
            )
        if sampling.min_tokens and len(sampling.stop_token_ids) + len(loaded.stop) >= loaded.vocab:
            raise RequestRejected(
                f"min_tokens: {sampling.min_tokens}, but every token of the model ends the answer"
            )
        if request.raw or not self._says:
            return
        ends = sampling.stop or sampling.stop_token_ids or not sampling.ignore_eos
        least = max(1, sampling.min_tokens) if ends else wanted
        in_force = sampling.in_force(wanted)
        size = result_bytes_least(least, sampling.n, sampling.logprobs, in_force)
        room = self._spec.record_bytes_max - HEADER_BYTES
        if size > room:
            raise RequestRejected(
                f"an answer of n = {sampling.n} with at least {least} tokens each has at least "
                f"{size} bytes, [fleet] record_bytes_max allows {room}"
            )

    def _terms(
        self, sampling: Sampling, loaded: LoadedModel, prompt: Sequence[int], wanted: int
    ) -> Terms:
        ends = () if sampling.ignore_eos else tuple(loaded.stop)
        distinct = tuple(dict.fromkeys(prompt)) if sampling.repetition_penalty != 1 else ()
        return Terms(
            sampling=sampling,
            text=loaded.text,
            prompt=distinct,
            ends=tuple(sorted(dict.fromkeys((*ends, *sampling.stop_token_ids)))),
            tokens_max=wanted,
        )

    # -- while it runs --------------------------------------------------------------------------

    def admitted(self, ticket: int, sample: int, hit: int) -> None:
        """A row of a ticket got its slot, with so many tokens of its prompt in it."""
        open_ = self._open[ticket]
        open_.sample(sample)
        if sample == 0:
            open_.hit = hit

    def computed(self, ticket: int, tokens: int) -> None:
        """So many prompt tokens of a ticket were prefilled."""
        self._open[ticket].computed += tokens

    def enough(self, ticket: int, number: int) -> int:
        """How many of the largest logits decide a row's next token; 0: only all of them."""
        open_ = self._open[ticket]
        tokens = len(open_.sample(number).tokens)
        return enough(open_.request.sampling, tokens, bool(open_.terms.ends))

    def draw(self, rows: Sequence[tuple[int, int, Row]]) -> list[Outcome]:
        """The next token of each row (ticket, sample, logits), booked, in order."""
        return [self._draw(*row) for row in rows]

    def _draw(self, ticket: int, number: int, row: Row) -> Outcome:
        open_ = self._open[ticket]
        sample = open_.sample(number)
        token = self._choose(self._spec.seed, open_, sample, number, row)
        if token is None:
            return Outcome(None)
        self.tokens += 1
        top = open_.request.sampling.logprobs
        if top is not None and not isinstance(row, Shortlist):
            self._score(ticket, number, sample, scores(row, token, top, self._total(row)))
        return Outcome(token, sample.add(token))

    def _score(self, ticket: int, number: int, sample: Sample, scored: tuple[Scored, ...]) -> None:
        place = len(sample.scores)
        sample.scores.append(scored)
        self._scores += [
            (FromEngine.SCORE, number, place, ticket, token, steps) for token, steps in scored
        ]

    def scores(self) -> list[ScoreRow]:
        """Slots with the log-probabilities of what was drawn since this was last asked."""
        rows, self._scores = self._scores, []
        return rows

    def draw_again(
        self, step: int, ticket: int, number: int, logits: Floats32, place: int
    ) -> int | None:
        """The ``place``-th token of a row, with the step's own seed; nothing is booked.

        Raises:
            LockstepBug: the tokens before it were not asked for.
        """
        seeds = [seed for before, seed in self._spec.past_seeds if step < before]
        sample = self._again(ticket, number, place)
        seed = (*seeds, self._spec.seed)[0]
        token = self._choose(seed, self._open[ticket], sample, number, logits)
        if token is not None:
            sample.add(token)
        return token

    def given_again(self, ticket: int, number: int, place: int, token: int) -> None:
        """The ``place``-th token of a row is this one. Errors as `draw_again`."""
        self._again(ticket, number, place).add(token)

    def _again(self, ticket: int, number: int, place: int) -> Sample:
        open_ = self._open[ticket]
        if place == 0:
            open_.again[number] = Sample(open_.terms)
        sample = open_.again.get(number)
        if sample is None or len(sample.tokens) != place:
            raise LockstepBug(f"ticket {ticket}: token {place} again, without those before it")
        return sample

    def go_on(
        self, waiting: Iterable[int], active: Iterable[Kept], scored: Iterable[Score] = ()
    ) -> None:
        """These tickets are open, and no others; the active ones have been answered in part.

        Args:
            waiting: Tickets that no row was admitted for.
            active: Rows of the others, those included that have ended before their ticket.
            scored: What the record has of log-probabilities of such rows, in order.
        """
        served = dict.fromkeys(waiting)
        found: dict[tuple[int, int], list[list[Scored]]] = {}
        for score in scored:
            places = found.setdefault((score.ticket, score.sample), [])
            places.extend([] for _ in range(score.place + 1 - len(places)))
            places[score.place].append(Scored(score.token, score.steps))
        for kept in active:
            served[kept.ticket] = None
            open_ = self._open[kept.ticket]
            open_.computed += kept.computed
            if kept.sample == 0:
                open_.hit = kept.hit
            places = found.get((kept.ticket, kept.sample), [])
            open_.sample(kept.sample).replay(kept.tokens, [tuple(place) for place in places])
        self._open = {ticket: self._open[ticket] for ticket in served}
        for open_ in self._open.values():
            open_.again.clear()

    def _choose(self, seed: int, open_: _Open, sample: Sample, number: int, row: Row) -> int | None:
        """A sample's next token; None: the logits are not finite."""
        if isinstance(row, Shortlist):
            if not row.sound:
                return None
            if open_.request.sampling.temperature == 0:
                return row.likeliest
            row = row.spread(self._models[open_.model].vocab)
        logits = row
        token = likeliest(logits)
        if token is None:
            return None
        adjusted = sample.adjusted(logits)
        sampling = open_.request.sampling
        if sampling.temperature == 0 and adjusted is logits:
            return token
        key = self._key(seed if sampling.seed is None else sampling.seed, open_.agent)
        index = len(sample.tokens)

        def uniforms(attempt: int) -> float:  # Rule 14.
            return keyed.uniform(key, open_.ordinal, attempt, number, index)

        return self._drawn(adjusted, sampling, uniforms)

    def _key(self, seed: int, agent: int) -> bytes:
        key = self._keys.get((seed, agent))
        if key is None:
            key = sampling_key(seed, self._spec.agent_names[agent])
            if seed == self._spec.seed:  # Others come from requests: there may be any number.
                self._keys[seed, agent] = key
        return key

    # -- out ------------------------------------------------------------------------------------

    def answer(self, step: int, end: Ended) -> tuple[int, int, bytes]:
        """Close a ticket: its status, its prompt tokens, its answer as the guest reads it."""
        open_ = self._open.pop(end.ticket)
        payload = b""
        if end.reason in GOOD_FINISHES:
            payload = self._result(open_, end.ticket, step)
        bytes_max = self._spec.record_bytes_max
        status, answer = encode_answer(open_.record, open_.model, step, end, payload, bytes_max)
        return status, open_.prompt_tokens, answer

    def _result(self, open_: _Open, ticket: int, step: int) -> bytes:
        sampling = open_.request.sampling
        naming = open_.terms.text.named if self._proposes else None
        samples = (open_.samples[number] for number in sorted(open_.samples))
        choices = [_choice(sample, sampling, naming) for sample in samples]
        in_force, cached = None, open_.hit
        if self._says:
            in_force = sampling.in_force(open_.terms.tokens_max)
            cached = max(0, open_.prompt_tokens - open_.computed)
        return encode_result(
            open_.request.raw,
            choices,
            sampling=in_force,
            tokens_in=open_.prompt_tokens,
            tokens_cached=cached,
            ticket=ticket,
            step=step,
        )


def _choice(sample: Sample, sampling: Sampling, naming: Naming | None) -> Choice:
    shown = None
    if sampling.logprobs is not None:
        shown = [spelled(scored, naming) for scored in sample.scores]
    return Choice(sample.said(), sample.tokens, sample.reason, sample.matched, shown)
