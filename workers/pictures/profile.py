"""The page of a profile: report.html, which is profile.json drawn.

A profile comes from a file, so nothing in it is relied upon but its shape: what is missing is left
out, what is no number is a gap, what is long is shown in part, and the page says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lockstep.workers.pictures import page
from lockstep.workers.pictures.bars import Bar, bars, columns
from lockstep.workers.pictures.chart import Chart, Line, chart
from lockstep.workers.pictures.scale import figure, finite, is_number, seconds
from lockstep.workers.pictures.svg import OTHER, few
from lockstep.workers.pictures.timeline import SCRIPT, TRACKS_MAX, timeline, with_stalls

ROWS_MAX = 24  # Bars of a picture; the table has everybody.
POINTS = 200  # Of a distribution.
SERIES_POINTS = 120  # Of a line over time.
COLUMNS_MAX = 128
SHARES = ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))
WAITING = "waiting"
PHASE_KIND = "seconds"

SERIES = (  # Title, unit, lines: (key, name), whether it is wide.
    ("Tokens answered", "tokens/s", (("tokens_per_s", "tokens"),), True),
    ("Rows and requests", "count", (("rows", "active rows"),
                                    ("tickets_waiting", "requests that wait for a row")), True),
    ("Tokens of prompts", "tokens/s", (("prompt_tokens_per_s", "tokens"),), False),
    ("Messages", "messages/s", (("messages_per_s", "messages"),), False),
    ("Events that wait for agents", "events", (("events_waiting", "events"),), False),
    ("The model waits for agents", "share of the time", (("stalled_share", "share"),), False),
)  # fmt: skip
DISTRIBUTIONS = {
    "ttft_ms": ("Time to first token", "from asking to the first token of the answer; "),
    "tpot_ms": ("Time per token", "of a request, after its first token; "),
    "itl_ms": ("Between tokens", "from each token to the next one of its answer; "),
    "request_ms": ("Requests", "from asking to the last token; "),
    "step_ms": ("Steps of the model", "one step of the inference process; "),
    "turn_ms": ("Turns", "from waking an agent to what it did; "),
    "guest_ms": ("Guest time", "of a turn, inside the agent; "),
    "journal_write_ms": ("Journal writes", "one write of the record; "),
    "sync_ms": ("Syncs", "one sync of the record to the disk; "),
}


def profile_page(profile: Mapping[str, Any]) -> str:
    """report.html of a profile.

    Args:
        profile: The object of profile.json.
    """
    run = profile.get("run") or {}
    sections = [
        ("In short", _short(profile, run)),
        ("Throughput over time", _series(profile.get("series") or {})),
        ("Latencies", _distributions(profile.get("distributions") or {})),
        ("Where the time went", _time(profile)),
        ("Timeline", _timeline(profile)),
        ("Agents", _agents(profile.get("agents") or [])),
    ]
    machine = profile.get("machine") or {}
    cores = f"{machine['cores']} cores" if "cores" in machine else ""
    known = (machine.get("cpu"), cores, machine.get("system"), run.get("provider"))
    subtitle = ", ".join(str(value) for value in known if value)
    title = f"Profile of {profile.get('fleet', 'a run')}"
    return page.page(title, subtitle, sections, SCRIPT.read_text(encoding="utf-8"))


def _short(profile: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    wall, tokens = profile.get("wall_s"), run.get("tokens_out")
    rate = tokens / wall if is_number(tokens) and is_number(wall) and wall else None
    held = run.get("stalled_s")
    cards = [
        ("state", str(run.get("state", "\u2013"))),
        ("wall time", seconds(wall)),
        ("tokens answered", figure(tokens)),
        ("tokens per second", figure(rate)),
        ("requests", figure(run.get("requests"))),
        ("turns", figure(run.get("turns"))),
        ("messages", figure(run.get("messages"))),
        ("held back", seconds(held)),
    ]
    digest = run.get("digest") or ""
    parts = [page.cards(cards), page.said(f"digest {digest}" if digest else "")]
    if profile.get("advice"):
        parts += ["<h3>What would help</h3>", page.listed(profile["advice"])]
    return "".join([*parts, _limits(profile.get("limits") or [])])


def _limits(limits: Sequence[Mapping[str, Any]]) -> str:
    rows, table = [], []
    for limit in limits:
        value, most, unit = limit.get("value"), limit.get("limit"), str(limit.get("unit", ""))
        share = 100 * value / most if is_number(value) and is_number(most) and most else None
        name = str(limit.get("name", "?"))
        table.append((name, value, most, unit, share, str(limit.get("note", ""))))
        if is_number(share):
            rows.append(Bar(name, [("share", share)], f"{figure(share)} %"))
    if not table:
        return ""
    picture = bars("Against the limits", _top(rows), "% of the limit", rows, 100.0)
    head = ("limit", "reached", "limit", "unit", "%", "note")
    return page.figures([page.figure("Against the limits", picture), page.table(head, table)])


def _series(series: Mapping[str, Any]) -> str:
    times = series.get("t_s") or []
    if not times:
        return ""
    parts, silent = [], []
    for title, unit, named, wide in SERIES:
        lines = [
            Line(name, coarse(times, series[key]), area=place == 0)
            for place, (key, name) in enumerate(named)
            if any(finite(series.get(key) or []))
        ]
        if not lines:
            silent.append(title.lower())
            continue
        about = "; ".join(f"{line.name}: {_range(y for _, y in line.points)}" for line in lines)
        axes = ("seconds since the run's first tag", unit)
        picture = chart(Chart(title, about, *axes, lines, wide=wide))
        parts.append(page.figure(title, picture, kind="wide" if wide else ""))
    keys = [key for _, _, named, _ in SERIES for key, _ in named if series.get(key)]
    rows = list(zip(times, *(series[key] for key in keys), strict=False))
    return page.figures(parts) + page.said(_bins(series, silent)) + page.numbers(("s", *keys), rows)


def _bins(series: Mapping[str, Any], silent: Sequence[str]) -> str:
    """What is to be said of all series."""
    width, every = series.get("bin_s"), _every(series["t_s"])
    said = []
    if is_number(width):
        said.append(f"A point is the mean of {seconds(width * every)}.")
    if silent:
        said.append(f"Nothing but 0, so not drawn: {', '.join(silent)}.")
    return " ".join(said)


def coarse(times: Sequence[float], values: Sequence[object]) -> list[tuple[float, float]]:
    """Means of neighbours, at most `SERIES_POINTS`: one step of a model would be a spike else."""
    every, found = _every(times), []
    for start in range(0, min(len(times), len(values)), every):
        if known := finite(values[start : start + every]):
            found.append((times[start], sum(known) / len(known)))
    return found


def _every(times: Sequence[float]) -> int:
    return -(-len(times) // SERIES_POINTS)


def _distributions(found: Mapping[str, Any]) -> str:
    parts, rows = [], []
    for key in [*DISTRIBUTIONS, *(key for key in found if key not in DISTRIBUTIONS)]:
        values = sorted(finite((found.get(key) or {}).get("values") or []))
        if not values:
            continue
        title, about = DISTRIBUTIONS.get(key, (key, ""))
        held = found[key]
        marks = [(_share(held, name, values, share), name) for share, name in SHARES]
        count = held.get("count", len(values))
        said = ", ".join(f"{name} {figure(value)} ms" for value, name in marks)
        axes = ("milliseconds", "share that took at most so long")
        lines = [Line(title, cdf(values))]
        picture = chart(Chart(title, said, *axes, lines, "log10", marks, (0.0, 1.0)))
        parts.append(page.figure(title, picture, f"{about}{figure(count)} of them: {said}"))
        rows.append((title, count, *(value for value, _ in marks), values[0], values[-1]))
    head = ("milliseconds", "count", *(name for _, name in SHARES), "least", "most")
    return page.figures(parts) + page.numbers(head, rows)


def _share(held: Mapping[str, Any], name: str, values: Sequence[float], share: float) -> float:
    """As the profile says, which has seen all of them, or of the values that it kept."""
    said = held.get(name)
    return said if is_number(said) else at_share(values, share)


def cdf(values: Sequence[float]) -> list[tuple[float, float]]:
    """(value, share not above it) of sorted values: steps; of many, `POINTS` and the ends."""
    count = len(values)
    if count <= POINTS:
        return [(v, (n + up) / count) for n, v in enumerate(values) for up in (0, 1)]
    places = sorted({*range(0, count, count // POINTS), count - 1})
    return [(values[place], (place + 1) / count) for place in places]


def at_share(values: Sequence[float], share: float) -> float:
    """The smallest of sorted values that ``share`` of them do not exceed."""
    return values[max(-(-len(values) * round(share * 1000) // 1000), 1) - 1]


def _time(profile: Mapping[str, Any]) -> str:
    return page.figures([
        _phases(profile.get("phases") or []),
        _processes(profile.get("processes") or []),
        *_batches(profile.get("batch") or {}),
        _stalls(profile.get("stalls") or []),
    ])  # fmt: skip


def _phases(phases: Sequence[Mapping[str, Any]]) -> str:
    total = sum(finite(phase.get("s") for phase in phases))
    if not total:
        return ""
    rows = [
        Bar(str(phase.get("name", "?")), [(PHASE_KIND, phase["s"])],
            f"{figure(100 * phase['s'] / total)} %")
        for phase in phases
        if is_number(phase.get("s")) and phase["s"] > 0
    ]  # fmt: skip
    title = "Phases of the inference process"
    table = [(row.name, row.parts[0][1], 100 * row.parts[0][1] / total) for row in rows]
    return page.figure(title, bars(title, _top(rows), "seconds", rows), "",
                       page.numbers(("phase", "s", "%"), table))  # fmt: skip


def _processes(processes: Sequence[Mapping[str, Any]]) -> str:
    if not processes:
        return ""
    spent = [_busy(process) for process in processes]
    kinds = few((name, s) for parts in spent for name, s in parts if name != WAITING)
    rows, table = [], []
    for process, parts in zip(processes, spent, strict=True):
        name, cpu = str(process.get("name", "?")), process.get("cpu_s")
        said = f"{seconds(cpu)} CPU" if is_number(cpu) else ""
        shown = [(kind if kind in kinds else OTHER, s) for kind, s in parts if kind != WAITING]
        rows.append(Bar(name, shown, said))
        what = ", ".join(f"{kind} {seconds(s)}" for kind, s in parts)
        table.append((name, process.get("pid"), cpu, what))
    title = "Time of the processes, waiting left out"
    first, note = _first(rows, "processes")
    return page.figure(title, bars(title, _top(first), "seconds", first), note,
                       page.numbers(("process", "pid", "CPU s", "time"), table))  # fmt: skip


def _busy(process: Mapping[str, Any]) -> list[tuple[str, float]]:
    found = process.get("busy") or []
    return [(str(b.get("name", "?")), b["s"]) for b in found if is_number(b.get("s"))]


def _batches(batch: Mapping[str, Any]) -> Iterable[str]:
    for name, found in batch.items():
        counts = [max(n, 0.0) if is_number(n) else 0.0 for n in found.get("steps_by_rows") or []]
        shown, mean = counts[: COLUMNS_MAX + 1], found.get("rows_mean")
        title = f"Rows of a step: {name}"
        about = f"{figure(sum(counts))} steps, {figure(mean)} rows on average"
        note = about + f", of at most {figure(found.get('rows_max'))}"
        if len(shown) < len(counts):
            note += f"; steps of more than {COLUMNS_MAX} rows are in the table alone"
        picture = columns(title, about, "rows of the model that were active", "steps", shown, mean)
        below = page.numbers(("rows", "steps"), list(enumerate(counts)))
        yield page.figure(title, picture, note, below)


def _stalls(stalls: Sequence[Mapping[str, Any]]) -> str:
    if not stalls:
        return ""
    ordered = sorted(stalls, key=lambda s: -s["s"] if is_number(s.get("s")) else 0.0)
    rows = [
        Bar(str(s.get("agent", "?")), [("waited for", s.get("s") or 0.0)],
            f"{seconds(s.get('s'))}, {_steps(s.get('steps'))}")
        for s in ordered
    ]  # fmt: skip
    shown, note = _first(rows, "agents")
    title = "Who held the model back, and for how long"
    table = [(str(s.get("agent", "?")), s.get("s"), s.get("steps")) for s in ordered]
    below = page.numbers(("agent", "s", "steps"), table)
    picture = bars(title, _top(shown), "seconds", shown)
    return page.figure(title, picture, note, below)


def _steps(count: object) -> str:
    return "1 step" if count == 1 else f"{figure(count)} steps"


def _timeline(profile: Mapping[str, Any]) -> str:
    found = profile.get("timeline") or {}
    tracks = with_stalls(found.get("tracks") or [], found.get("stalls") or [])
    if not any(track["spans"] for track in tracks):
        return ""
    end = max(s[0] + s[1] for t in tracks for s in t["spans"] if is_number(s[0] + s[1]))
    spans = sum(len(track["spans"]) for track in tracks)
    note = f"{figure(spans)} spans; what is closer than a pixel is drawn as one."
    if len(tracks) > TRACKS_MAX:
        note += f" The first {TRACKS_MAX} of {len(tracks)} tracks; the trace has all of them."
    title = "What each process did"
    about = f"{len(tracks)} tracks over {seconds(end)}"
    return page.figure(title, timeline(title, about, tracks, end), note, "", "wide timeline")


def _agents(agents: Sequence[Mapping[str, Any]]) -> str:
    if not agents:
        return ""
    keys = list(dict.fromkeys(key for agent in agents for key in agent))
    rows = [[_cell(agent.get(key)) for key in keys] for agent in agents]
    return page.table([key.replace("_", " ") for key in keys], rows)


def _cell(value: Any) -> page.Cell:
    return value if value is None or isinstance(value, int | float) else str(value)


def _first(rows: Sequence[Bar], what: str) -> tuple[Sequence[Bar], str]:
    """As many rows as a picture takes, and the words for the rest."""
    rest = len(rows) - ROWS_MAX
    note = f"The first {ROWS_MAX}; {rest} more {what} are in the table." if rest > 0 else ""
    return rows[:ROWS_MAX], note


def _top(rows: Sequence[Bar]) -> str:
    """What a picture of bars shows, for who cannot see it."""
    said = (f"{row.name}: {row.said}" if row.said else row.name for row in rows[:5])
    return "; ".join(said) + (f"; and {len(rows) - 5} more" if len(rows) > 5 else "")


def _range(values: Iterable[object]) -> str:
    known = finite(values)
    return f"{figure(min(known))} to {figure(max(known))}" if known else "nothing"
