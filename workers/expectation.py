"""What can be expected of a second execution on this machine, said before anything is executed.

The rules are one table, which docs/verify.md shows: a kind of difference between then and now,
and which equality it leaves.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

SINCE = "since the run: "  # The supervisor's notes about what differs begin so.
BITS, TEXTS, NONE = "bits", "texts", "none"


class Rule(NamedTuple):
    """One row: keys of the environment that begin so, what is left of equality, and why."""

    key: str
    leaves: str
    why: str


# The first row that fits a key counts, the weakest of all found is what can be expected.
RULES = (
    Rule("versions.lockstep", BITS, "the record says by which rules it was made"),
    Rule("versions.python", BITS, "no bit is left to it"),
    Rule("versions.numpy", BITS, "the sampler is built from + - * / in a fixed order"),
    Rule("versions.jinja2", BITS, "unless it fills in a chat template in another way"),
    Rule("versions.tokenizers", BITS, "unless it cuts a text into other tokens"),
    Rule("versions.wasmtime", NONE, "it may count fuel in another way, which moves turns in time"),
    Rule("versions", TEXTS, "its kernels may add numbers in another order"),
    Rule("cpu", TEXTS, "libraries choose their kernels by the features of the CPU"),
    Rule("platform", TEXTS, "libraries have other kernels for it"),
    Rule("providers", TEXTS, "another provider computes other bits"),
    Rule("class of", NONE, "two sessions of the model gave different bits"),
)
_ORDER = (BITS, TEXTS, NONE)  # From the strongest.
_SAYS = {
    BITS: "the same bits",
    TEXTS: "the same texts at best (digest_text), not the same bits",
    NONE: "nothing for certain",
}


class Expectation(NamedTuple):
    """What can be expected.

    Attributes:
        leaves: "bits", "texts" or "none".
        text: For people, with the reasons.
    """

    leaves: str
    text: str


def expect(differences: Sequence[str]) -> Expectation:
    """What differences of the environment leave.

    Args:
        differences: ``key: then -> now``, as `workers.identity.environment_differences` gives them.
    """
    if not differences:
        return Expectation(BITS, f"{_SAYS[BITS]}: machine type, provider and versions are the same")
    leaves = BITS
    reasons: dict[str, None] = {}
    for line in differences:
        key = line.partition(":")[0]
        # What nobody thought of leaves as much as another library.
        rule = next((r for r in RULES if key.startswith(r.key)), Rule(key, TEXTS, "it is new"))
        if _ORDER.index(rule.leaves) > _ORDER.index(leaves):
            leaves, reasons = rule.leaves, {}
        if rule.leaves == leaves:
            reasons[f"{_subject(key)}: {rule.why}"] = None
    return Expectation(leaves, f"{_SAYS[leaves]} ({'; '.join(reasons)})")


def _subject(key: str) -> str:
    table, _, rest = key.partition(".")
    if key.startswith("class of"):
        return key
    return f"another {rest}" if table == "versions" else f"another {table.partition('[')[0]}"


class Beforehand:
    """A listener in front of another: it gathers what differs, and says what that leaves.

    The supervisor notes what differs, then makes its folder ("run") and begins to execute: what
    can be expected is told in between, as ("expect", text).

    Attributes:
        differences: As `expect` takes them.
    """

    def __init__(self, listen: Callable[[str, Any], None] | None) -> None:
        self._listen = listen
        self.differences: list[str] = []

    @property
    def expectation(self) -> Expectation:
        """What can be expected, as far as it is known."""
        return expect(self.differences)

    def __call__(self, what: str, value: Any) -> None:
        """Take what the supervisor says."""
        if what == "note" and str(value).startswith(SINCE):
            self.differences.append(str(value).removeprefix(SINCE))
        if self._listen is None:
            return
        if what == "run":
            self._listen("expect", self.expectation.text)
        self._listen(what, value)
