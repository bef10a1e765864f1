"""Watching: what a person sees of a run's agents, and what the keys change about it.

Pure: time is given to it. Rows are sorted by one column and then by index, so that
equal ones keep their places; what nobody knows comes last.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lockstep.cli import screen
from lockstep.cli.keys import BACKSPACE, ENTER, ESCAPE

Table = dict[str, Any]
GAP = "  "
UNITS = "kMGTPE"
HINT = "q quit  s sort  r reverse  / filter  space pause  ? help"
HELP = """\
q               quit
s, S            sort by the next column, the one before (also right, left)
r               reverse the order
/               filter: only agents whose name or state has the text; enter, escape
space           pause: keep what is shown
up, down        scroll (also k, j; page up, page down; home, end)
?               this help; any key takes it away"""


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        head: Its title.
        key: In a row.
        need: The higher, the longer it is kept when the terminal is narrow.
        number: Whether it is one: to the right, the largest first.
    """

    head: str
    key: str
    need: int
    number: bool = True


COLUMNS = (
    Column("agent", "name", 99, number=False),
    Column("index", "index", 1),
    Column("pid", "pid", 3),
    Column("state", "state", 98, number=False),
    Column("cpu%", "cpu", 97),
    Column("mem", "memory_bytes", 9),
    Column("step", "step", 5),
    Column("turns", "turns", 96),
    Column("fuel", "fuel", 8),
    Column("mailbox", "mailbox", 10),
    Column("requests", "requests", 7),
    Column("stall_s", "stall_s", 6),
)
_SORTS = ("index", *(column.key for column in COLUMNS if column.key != "index"))


class Watching:
    """What is shown, and how.

    Attributes:
        paused: What is shown stays.
    """

    def __init__(self) -> None:
        self.paused = False
        self._sort, self._reverse = "index", False
        self._filter, self._typing, self._help = "", False, False
        self._first = 0  # Of the rows that fit.
        self._page = 1
        self._found: Table = {}
        self._cpu: dict[int, tuple[float, float]] = {}  # By pid: CPU seconds, and when.
        self._shares: dict[int, float] = {}

    def take(self, found: Table, now_s: float) -> None:
        """A new look (`top.look`), at a time of the monotonic clock."""
        seen: dict[int, tuple[float, float]] = {}
        self._shares = {}
        for row in (found["supervisor"], found["inference"], *found["agents"]):
            pid, cpu_s = row["pid"], row["cpu_s"]
            if pid is None or cpu_s is None:
                continue
            seen[pid] = cpu_s, now_s
            before_s, at_s = self._cpu.get(pid, (cpu_s, now_s))
            if now_s > at_s:
                self._shares[pid] = max(cpu_s - before_s, 0.0) / (now_s - at_s) * 100
        self._cpu, self._found = seen, found

    def press(self, key: str) -> bool:
        """Take a key. Returns whether to go on."""
        if self._help:
            self._help = False
        elif self._typing:
            self._type(key)
        elif key in ("q", "Q"):
            return False
        else:
            self._do(key)
        return True

    def _do(self, key: str) -> None:
        match key:
            case "s" | "right" | ">":
                self._sort_by(1)
            case "S" | "left" | "<":
                self._sort_by(-1)
            case "r":
                self._reverse = not self._reverse
            case "/":
                self._typing = True
            case " " | "p":
                self.paused = not self.paused
            case "?" | "h":
                self._help = True
            case _ if key == ESCAPE:
                self._filter = ""
            case _:
                self._scroll(key)

    def _scroll(self, key: str) -> None:
        step = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -self._page,
                "page down": self._page, "home": -self._first, "end": 1 << 30}  # fmt: skip
        self._first += step.get(key, 0)  # Brought back into bounds when it is drawn.

    def _sort_by(self, step: int) -> None:
        self._sort = _SORTS[(_SORTS.index(self._sort) + step) % len(_SORTS)]
        self._reverse = False

    def _type(self, key: str) -> None:
        if key in (ENTER, ESCAPE):
            self._typing = False
            self._filter = self._filter if key == ENTER else ""
        elif key == BACKSPACE:
            self._filter = self._filter[:-1]
        elif len(key) == 1:
            self._filter += key
        self._first = 0

    def render(self, width: int, height: int, *, keys: bool) -> list[str]:
        """The lines, each short enough: the last column stays free, some terminals wrap there.

        Args:
            width: Columns of the terminal.
            height: Its lines.
            keys: Whether there are any: a hint is shown.
        """
        bottom = self._bottom() if keys else ""
        lines = [*self._head(), ""]
        if self._help:
            lines += HELP.splitlines()
        else:
            room = height - len(lines) - 1 - (1 if bottom else 0)
            lines += self._table(width - 1, max(room, 1))
        if bottom:
            lines = [*lines[: max(height - 1, 0)], bottom]
        return [line[: max(width - 1, 0)] for line in lines[:height]]

    def _head(self) -> list[str]:
        found = self._found
        engine, supervisor = found["inference"], found["supervisor"]
        known = {key: "-" if value is None else value for key, value in engine.items()}
        work = (
            "step {step}, {rows} rows, {tickets_waiting} tickets waiting, {tokens} tokens, "
            "{tokens_per_s} tokens/s".format(**known)
        )
        return [
            f"state       {screen.one_line(found['state'])}",
            f"supervisor  {self._process(supervisor)}",
            f"inference   {self._process(engine)}, {work}",
        ]

    def _process(self, row: Table) -> str:
        if row["pid"] is None:
            return "no process"
        share = self._shares.get(row["pid"])
        cpu = f" {share:.0f}% cpu" if share is not None else ""
        memory = f" {short(row['memory_bytes'])}" if row["memory_bytes"] is not None else ""
        return f"pid {row['pid']}{cpu}{memory}"

    def _table(self, width: int, room: int) -> list[str]:
        """The head of the table, and as many rows as there is room for."""
        rows = self._sorted()
        marks = {self._sort: "^" if self._reverse == self._falls() else "v"}
        cells = [[self._cell(row, column) for column in COLUMNS] for row in rows]
        heads = [column.head + marks.get(column.key, "") for column in COLUMNS]
        widths = [max([len(head), *(len(row[n]) for row in cells)]) for n, head in enumerate(heads)]
        shown = fitting(widths, width, self._sort)
        self._page = max(room - 1, 1)
        fits = room if len(rows) <= room else max(room - 1, 1)
        self._first = min(max(self._first, 0), max(len(rows) - fits, 0))
        window = cells[self._first : self._first + fits]
        lines = [_line(row, widths, shown) for row in [heads, *window]]
        if len(rows) > room > 1:
            lines.append(
                f"... agents {self._first + 1} to {self._first + len(window)} of {len(rows)}"
            )
        return lines

    def _falls(self) -> bool:
        """Whether the largest comes first: of figures, but not of what is only a number."""
        column = next(column for column in COLUMNS if column.key == self._sort)
        return column.number and column.key not in ("index", "pid")

    def _sorted(self) -> list[Table]:
        wanted = self._filter.lower()
        rows = [
            {**row, "cpu": self._shares.get(row["pid"])}
            for row in self._found["agents"]
            if wanted in f"{row['name']} {row['state']}".lower()
        ]
        known = [row for row in rows if row[self._sort] is not None]
        unknown = [row for row in rows if row[self._sort] is None]
        # Python's sort keeps the order of equals, also reversed: they stay in order of agents.
        known.sort(key=lambda row: row[self._sort], reverse=self._falls() != self._reverse)
        return [*known, *unknown]

    def _cell(self, row: Table, column: Column) -> str:
        value = row[column.key]
        if value is None:
            return "-"
        match column.key:
            case "memory_bytes" | "fuel":
                return short(value)
            case "cpu":
                return f"{value:.0f}"
        return screen.escape(value)

    def _bottom(self) -> str:
        if self._typing:
            return f"filter: {screen.escape(self._filter)}_"
        parts = ["paused"] if self.paused else []
        if self._filter:
            parts.append(f"filter: {screen.escape(self._filter)} (escape)")
        return GAP.join([*parts, HINT])


def fitting(widths: Sequence[int], width: int, sort: str) -> list[int]:
    """Numbers of the columns that fit, in order; what it was sorted by is needed most."""
    wanted = "" if sort == "index" else sort  # Nobody sorted it.
    needs = [(column.key == wanted, column.need) for column in COLUMNS]
    order = sorted(range(len(COLUMNS)), key=needs.__getitem__, reverse=True)
    shown: list[int] = []
    used = 0
    for number in order:
        more = widths[number] + (len(GAP) if shown else 0)
        if used + more <= width:
            shown.append(number)
            used += more
    return sorted(shown) or [0]


def _line(cells: Sequence[str], widths: Sequence[int], shown: Sequence[int]) -> str:
    parts = [
        cells[n].rjust(widths[n]) if COLUMNS[n].number else cells[n].ljust(widths[n])
        for n in shown
    ]  # fmt: skip
    return GAP.join(parts).rstrip()


def short(number: float) -> str:
    """A number in four characters or so: ``999``, ``1.2k``, ``34M``."""
    if number < 1000:
        return f"{number:.0f}"
    power = 0
    while number >= 999.5 and power < len(UNITS):
        number /= 1000
        power += 1
    unit = UNITS[power - 1]
    return f"{number:.1f}{unit}" if number < 9.95 else f"{number:.0f}{unit}"
