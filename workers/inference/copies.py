"""Copies: keys and values from slot to slot, each copy of a step done once.

A step's copies are done one after the other, and a later one may overwrite what an earlier one
was read from (two rows that change places do). So a process that runs a step again, because an
earlier one died in it, must not begin anew: it goes on behind the last copy that was done. How far
that one came stands beside the slots, in memory that outlives both.

Why that is enough. The word is written behind each copy, so the copy that was under way may be
done again: no copy writes to its own source, and what it was read from is written by none but later
copies and by the runs behind them, which had not begun. Runs begin when every copy is done, and are
done again as a whole: what they write is no source of anything, since no copy is left.
"""

from collections.abc import Sequence

from lockstep.engine.errors import LockstepBug
from lockstep.engine.plan import Copy
from lockstep.workers.inference.kv import KvSlab

# The word: (step + 1) << 15 | copies of it that are done. 0: nothing is known. Steps are below
# 2^48 (`steps_max`), so it fits. One aligned word, so that no death leaves half of it.
_DONE_BITS = 15
COPIES_MAX = (1 << _DONE_BITS) - 1


class Copies:
    """Executes the copies of steps on a slab.

    Args:
        slab: Where.
        word: One u64 that lives as long as the slab's bytes do; None: those die with the process.
    """

    def __init__(self, slab: KvSlab, word: memoryview | None = None) -> None:
        self._slab = slab
        self._word = memoryview(bytearray(8)).cast("Q") if word is None else word

    def run(self, step: int | None, copies: Sequence[Copy]) -> None:
        """Do the copies of a step that are not done yet, in order; without a step, all of them.

        Raises:
            LockstepBug: more than can be counted; none was done.
        """
        if len(copies) > COPIES_MAX:
            raise LockstepBug(f"step {step}: {len(copies)} copies, at most {COPIES_MAX} are legal")
        before = 0 if step is None else self.done(step)
        for number, copy in enumerate(copies[before:], before + 1):
            self._slab.copy(copy.source, copy.slot, copy.start, copy.count)
            if step is not None:
                self._word[0] = (step + 1) << _DONE_BITS | number

    def done(self, step: int) -> int:
        """How many copies of a step are done."""
        of, done = divmod(self._word[0], 1 << _DONE_BITS)
        return done if of == step + 1 else 0

    def forget(self) -> None:
        """What the slots hold is to be made again: nothing that was done before counts."""
        self._word[0] = 0

    def close(self) -> None:
        """Let go of the word."""
        self._word.release()
