"""Slots of one model: what each holds, whose it is, and what is copied from one to another. Pure.

The first ``rows_max`` slots compute. In those behind them conversations rest: nothing computes
there, and no request is ever active there. Whatever changes what a slot holds is noted, in order,
for the plan: who executes the notes has in his slots what is written here.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lockstep.engine.plan import Copy, Request
from lockstep.engine.restored import ACTIVE, Kept

TOKEN_BYTES = 8  # Of a packed token.
# Of a prompt, that are computed whatever is there: a chunk of one token behind what was found would
# run on the decode kernel, whose KV is not bit-equal to prefill's.
SPARED_TOKENS = 2

Conversation = tuple[int, str]


@dataclass(slots=True)
class Row:
    """A request, or one sample of it, in a slot.

    Attributes:
        request: What is asked.
        sample: Which answer of it.
        slot: Where.
        filled: Prompt tokens in the KV.
        out: Tokens it was given.
        packed: The prompt, to be compared.
        compared: What comparing it came to, so that nothing is compared twice.
    """

    request: Request
    sample: int
    slot: int
    filled: int
    out: list[int] = field(default_factory=list)
    packed: bytes = b""
    compared: dict[bytes, int] = field(default_factory=dict)

    def is_whole(self) -> bool:
        return self.filled == len(self.request.prompt)


@dataclass(slots=True)
class Slot:
    """What a slot holds.

    Attributes:
        tokens: By position.
        conversation: Whose it is; None: nobody's, when no row is in it.
        row: The active one.
        last_used: (step, ticket) of the last request that ended here.
        shared: Tokens at the beginning that others may copy: prefill computed them, in chunks of
            more than one.
        lead: Those packed; while a row computes the rest of its prompt, the whole prompt.
    """

    tokens: list[int] = field(default_factory=list)
    conversation: Conversation | None = None
    row: Row | None = None
    last_used: tuple[int, int] = (-1, 0)
    shared: int = 0
    lead: bytes = b""


class Slots:
    """All slots of a model.

    Attributes:
        all: By number.
        evicted: Slots whose conversation was given up since `noted`.
        copies: What was copied since then.
    """

    def __init__(self, rows_max: int, rows_kept: int, prefix_copies: bool) -> None:
        self._rows_max = rows_max
        self._sharing = prefix_copies
        self._copying = prefix_copies or rows_kept > 0
        self.all = [Slot() for _ in range(rows_max + rows_kept)]
        self.evicted: list[int] = []
        self.copies: list[Copy] = []

    def __getitem__(self, number: int) -> Slot:
        return self.all[number]

    def noted(self) -> tuple[tuple[int, ...], tuple[Copy, ...]]:
        """What was evicted and copied since it was asked last."""
        noted = tuple(self.evicted), tuple(self.copies)
        self.evicted, self.copies = [], []
        return noted

    def lengths(self) -> tuple[int, ...]:
        """Tokens in each slot that computes."""
        return tuple(len(slot.tokens) for slot in self.all[: self._rows_max])

    # -- admission ------------------------------------------------------------------------------

    def admit(
        self, request: Request, sample: int, wanted: Mapping[Conversation, object]
    ) -> Row | None:
        """Give a slot to a request, or to a sample of it; None: all are active (rule 1).

        Args:
            request: The next in line.
            sample: Which answer; only the first goes on with the conversation, and keeps it.
            wanted: Conversations with a waiting request: they are the last to be given up.
        """
        conversation = request.conversation if sample == 0 else None
        home = self._home(conversation)
        number = home if home is not None and home < self._rows_max else self._vacant(home, wanted)
        if number is None:
            return None
        if home is not None and home != number:
            self._bring(home, number, _prefix_hit(self.all[home].tokens, request.prompt))
        slot = self.all[number]
        fit = slot.tokens if home is not None else slot.tokens[: slot.shared]
        hit = _prefix_hit(fit, request.prompt)
        row = slot.row = Row(request, sample, number, hit)
        slot.conversation = conversation
        del slot.tokens[hit:]
        if self._sharing:
            row.packed = pack(request.prompt)
            slot.shared = min(slot.shared, hit)
            self._lead(slot, row)
        return row

    def _home(self, conversation: Conversation | None) -> int | None:
        """The slot of a conversation that is not active: one that computes before one at rest."""
        if conversation is None:
            return None
        for number, slot in enumerate(self.all):
            if slot.row is None and slot.conversation == conversation:
                return number
        return None

    def _vacant(self, home: int | None, wanted: Mapping[Conversation, object]) -> int | None:
        """A slot that computes, free now: the lowest, else the least recently used idle one."""
        idle = [n for n in range(self._rows_max) if self.all[n].row is None]
        for number in idle:
            if self.all[number].conversation is None:
                return number
        if not idle:
            return None
        number = self._least(idle, wanted)
        self._clear(number, home, wanted)
        return number

    def _least(self, numbers: Sequence[int], wanted: Mapping[Conversation, object]) -> int:
        unwanted = [n for n in numbers if self.all[n].conversation not in wanted]
        return min(unwanted or numbers, key=lambda n: (self.all[n].last_used, n))

    def _clear(self, number: int, home: int | None, wanted: Mapping[Conversation, object]) -> None:
        """A conversation has to leave: to rest if it can, else it, or another one, is given up.

        What it computed stays where it was until it is written over: it may be the beginning of
        what comes.
        """
        slot = self.all[number]
        resting = [n for n in range(self._rows_max, len(self.all)) if n != home]
        if resting and slot.tokens:
            place = self._free_rest()
            if place is None:
                place = self._least([number, *resting], wanted)
                self.evicted.append(place)
            if place != number:
                self._note_move(number, place, len(slot.tokens))
                self.all[place] = Slot(
                    list(slot.tokens), slot.conversation, None, slot.last_used, slot.shared,
                    slot.lead,
                )  # fmt: skip
        else:
            self.evicted.append(number)
        slot.conversation = None

    def _free_rest(self) -> int | None:
        for number in range(self._rows_max, len(self.all)):
            if self.all[number].conversation is None:
                return number
        return None

    def _bring(self, home: int, number: int, hit: int) -> None:
        """A conversation comes back from rest, as much of it as its request goes on from."""
        slot = self.all[home]
        self._note_move(home, number, hit)
        self.all[home] = Slot()
        self.all[number] = Slot(
            slot.tokens[:hit], slot.conversation, None, slot.last_used, min(slot.shared, hit)
        )

    def _note_move(self, source: int, slot: int, count: int) -> None:
        self.copies.append(Copy(source, slot, 0, count, move=True))

    # -- rows -----------------------------------------------------------------------------------

    def copy_prefix(self, source: int, row: Row, until: int) -> None:
        """Copy the prompt of a row, up to a position, from a slot that has it."""
        slot = self.all[row.slot]
        self.copies.append(Copy(source, row.slot, row.filled, until - row.filled))
        slot.tokens.extend(row.request.prompt[row.filled : until])
        slot.shared = row.filled = until
        self._lead(slot, row)

    def fill(self, row: Row, tokens: Sequence[int]) -> None:
        """Prefill computes the next tokens of a prompt, in one chunk."""
        slot = self.all[row.slot]
        slot.tokens.extend(tokens)
        if self._sharing and slot.shared == row.filled and len(tokens) > 1:
            slot.shared = row.filled + len(tokens)
        row.filled += len(tokens)
        if self._sharing:
            self._lead(slot, row)

    def _lead(self, slot: Slot, row: Row) -> None:
        whole = slot.shared == row.filled  # What it computes next others may copy, too.
        slot.lead = row.packed if whole else row.packed[: slot.shared * TOKEN_BYTES]

    def release(self, row: Row, step: int) -> None:
        """A row ended; its conversation keeps the slot, and without one it is free."""
        slot = self.all[row.slot]
        slot.row = None
        slot.last_used = (step, row.request.ticket)
        slot.lead = slot.lead[: slot.shared * TOKEN_BYTES]
        if slot.conversation is None:
            self.all[row.slot] = Slot()

    def wipe(self, row: Row) -> None:
        """A row ended, and what it computed must never be a later request's prefix."""
        self.all[row.slot] = Slot()

    def compact(self) -> None:
        """Move the highest active rows to the lowest idle slots, while more than a quarter idles.

        All slots from the first active one to the last compute together, the idle ones for
        nothing. A conversation that rests in the way makes room if there is some to rest in.
        """
        while self._copying:
            active = [n for n in range(self._rows_max) if self.all[n].row is not None]
            inside = range(active[0], active[-1]) if active else range(0)
            idle = [n for n in inside if self.all[n].row is None]
            place = next((n for n in idle if self._makes_room(n)), None)
            if 4 * len(idle) <= len(active) or place is None:
                return
            self._move_row(active[-1], place)

    def _makes_room(self, number: int) -> bool:
        return self.all[number].conversation is None or self._free_rest() is not None

    def _move_row(self, number: int, place: int) -> None:
        if self.all[place].conversation is not None:
            self._clear(place, None, {})
        slot = self.all[number]
        assert slot.row is not None
        self._note_move(number, place, len(slot.tokens))
        self.all[place], self.all[number] = slot, Slot()
        slot.row.slot = place

    # -- after a loss ---------------------------------------------------------------------------

    def restore(self, kept: Kept, request: Request) -> Row | None:
        """Fill a slot as it was; the row that is active in it."""
        slot = self.all[kept.slot]
        # The last token of an answer is fed with the next step, so it is not there yet.
        slot.tokens = [*request.prompt[: kept.filled], *kept.tokens[:-1]]
        slot.conversation = request.conversation if kept.sample == 0 else None
        row = Row(request, kept.sample, kept.slot, kept.filled, list(kept.tokens))
        if self._sharing:
            row.packed = pack(request.prompt)
            slot.shared = kept.shared
            self._lead(slot, row)
        if kept.ended == ACTIVE:
            slot.row = row
        else:
            slot.last_used = (kept.ended, kept.ticket)
            slot.lead = slot.lead[: slot.shared * TOKEN_BYTES]
        return slot.row


def pack(tokens: Sequence[int]) -> bytes:
    """Tokens as bytes, for comparison."""
    return array("q", tokens).tobytes()


def _prefix_hit(kept: list[int], prompt: Sequence[int]) -> int:
    """Prompt tokens that need no prefill, compared by token ids."""
    low, high = 0, min(len(kept), max(0, len(prompt) - SPARED_TOKENS))
    wanted = list(prompt[:high])
    while low < high:  # By halves: whole lists are compared quicker than tokens one by one.
        middle = (low + high + 1) // 2
        if kept[low:middle] == wanted[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
