"""Told: reports and comparisons as text, and as pages. Both say the same."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from lockstep.bench.combined import Json
from lockstep.bench.comparing import ORDER, Change, Comparison
from lockstep.workers.pictures import page
from lockstep.workers.pictures.bars import Span, intervals
from lockstep.workers.pictures.scale import figure

RATIO = "ratio: above 1 Lockstep is better"
ABOUT = (
    "A ratio is the median of alternating pairs, its interval encloses it with 95 %. Of several "
    "runs it is the median, from the lowest to the highest end of their intervals. Absolutes "
    "belong to this machine on this day. docs/benchmarks.md says what is compared with what."
)
RULE = (
    "Changed is a ratio whose two intervals do not touch. Absolutes have no verdict, and are "
    "not shown across machines."
)
OTHER_MACHINE_HEAD = "OTHER MACHINE"
OTHER_MACHINE = (
    "These are two machines: only ratios are compared, and they, too, may differ by machine."
)


def session_text(report: Json) -> str:
    """A session for a terminal or a file: lines."""
    lines = [title(report), machine_line(report), ""]
    for group, held in report["groups"].items():
        lines += [_group_line(group, held, report), *columns(_rows(held)), ""]
    lines += [f"{group}: not measured: {why}" for group, why in report["failed"].items()]
    return "\n".join(lines).rstrip() + "\n"


def session_page(report: Json) -> str:
    """The same with pictures."""
    sections = [("In short", _short(report))]
    for group, held in report["groups"].items():
        sections.append((group, _group(group, held, report)))
    left = [(group, "", why) for group, why in report["failed"].items()]
    left += [
        (f"{group}: {one['name']}", one["reason"], one["get"])
        for group, held in report["groups"].items()
        for one in held["skipped"]
    ]
    skipped = page.table(("what", "why", "how to get it"), left) if left else ""
    return page.page(title(report), machine_line(report), [*sections, ("Skipped", skipped)])


def comparison_text(found: Comparison) -> str:
    """A comparison for a terminal: lines."""
    lines = [f"{found.names[0]} -> {found.names[1]}"]
    lines += [f"{OTHER_MACHINE_HEAD}: {line}" for line in found.machines]
    lines += [OTHER_MACHINE] if found.machines else []
    lines += [f"differs: {line}" for line in found.others]
    rows = [_change_cells(change) for change in found.changes]
    lines += ["", *columns([("ratio", "before", "after", "factor", "verdict"), *rows]), ""]
    return "\n".join([*lines, verdict_line(found), RULE]) + "\n"


def comparison_page(found: Comparison) -> str:
    """The same with pictures."""
    spans = [
        Span(_name(c), [_span("before", c.before), _span("after", c.after)],
             f"{figure(c.factor)} x, {c.verdict}")
        for c in found.changes if c.before and c.after
    ]  # fmt: skip
    picture = page.figure("Ratios, before and after",
                          intervals("Ratios, before and after", verdict_line(found), RATIO, spans),
                          kind="wide")  # fmt: skip
    changes = page.table(("ratio", "before", "after", "factor", "verdict"),
                         [_change_cells(change) for change in found.changes])  # fmt: skip
    absolutes = [
        (f"{a.group} {a.name}", a.before, a.after, a.unit,
         100 * (a.after / a.before - 1) if a.before else None)
        for a in found.absolutes
    ]  # fmt: skip
    loud = page.said("; ".join([*found.machines, OTHER_MACHINE]), "loud") if found.machines else ""
    short = [loud, page.said(verdict_line(found), ""), page.said(RULE), page.listed(found.others)]
    sections = [
        ("In short", "".join(short)),
        ("Ratios", picture + changes if found.changes else ""),
        ("Absolutes", page.table(("result", "before", "after", "unit", "%"), absolutes)
         if absolutes else ""),
    ]  # fmt: skip
    return page.page("Lockstep, compared", f"{found.names[0]} \u2192 {found.names[1]}", sections)


def verdict_line(found: Comparison) -> str:
    """How many ratios have which verdict, in words."""
    counts = found.counts()
    said = ", ".join(f"{counts[v]} {v}" for v in ORDER if counts[v])
    return f"{said or 'no ratio in either'}"


def title(report: Mapping[str, object]) -> str:
    """Version and kind of a session."""
    commit = f" ({report['commit']})" if report.get("commit") else ""
    return f"Lockstep {report['lockstep']}{commit}, measured{' quickly' * bool(report['quick'])}"


def machine_line(report: Json) -> str:
    """What it was measured on."""
    machine = report["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['system']}, Python {machine['python']}, {machine['form']}; {packages}"
    )


def columns(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Rows of words as aligned lines."""
    rows = [*rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(w.ljust(n) for w, n in zip(row, widths, strict=True)).rstrip()


def _short(report: Json) -> str:
    held = report["groups"].values()
    cards = [
        ("groups", figure(len(report["groups"]))),
        ("ratios", figure(sum(len(one["ratios"]) for one in held))),
        ("runs", figure(sum(one["runs"] for one in held))),
        ("minutes", figure(sum(sum(one["wall_s"]) for one in held) / 60)),
    ]
    return page.cards(cards) + page.said(ABOUT)


def _group(group: str, held: Json, report: Json) -> str:
    rows = [
        Span(name, [("ratio", r["low"], r["median"], r["high"])],
             f"{figure(r['median'])} x ({figure(r['low'])} to {figure(r['high'])})")
        for name, r in held["ratios"].items()
    ]  # fmt: skip
    about = "; ".join(f"{row.name} {row.said}" for row in rows)
    parts = [page.said(_group_line(group, held, report))]
    if rows:
        picture = intervals(f"Ratios of {group}", about, RATIO, rows)
        table = page.numbers(("ratio", "median", "low", "high"), [
            (name, r["median"], r["low"], r["high"]) for name, r in held["ratios"].items()
        ])  # fmt: skip
        parts.append(page.figure("Ratios", picture, "", table, "wide"))
    results = [(n, r["value"], r["unit"], r["low"], r["high"]) for n, r in held["results"].items()]
    if results:
        parts.append(page.table(("result", "median", "unit", "least", "most"), results))
    parts.append(page.listed(f"{name}: {note}" for name, note in held["notes"].items()))
    return "".join(parts)


def _group_line(group: str, held: Json, report: Json) -> str:
    """How often it was measured, and whether that was enough."""
    runs = f"{held['runs']} run{'s' * (held['runs'] != 1)}"
    spread = held["spread_percent"]
    if spread is None:
        return f"{group}: {runs}"
    state = "stable" if held["stable"] else f"not within {report['stable_percent']:g} %"
    window = f"the last {report['window']} lie within {spread:g} % of their middle"
    return f"{group}: {runs}, {state}: {window}"


def _rows(held: Json) -> list[tuple[str, str, str]]:
    rows = [
        (f"  {name}", f"{figure(r['median'])} x", f"{figure(r['low'])} to {figure(r['high'])}")
        for name, r in held["ratios"].items()
    ]
    rows += [
        (f"  {n}", f"{figure(r['value'])} {r['unit']}", "") for n, r in held["results"].items()
    ]
    rows += [(f"  {s['name']}", "skipped", f"{s['reason']}: {s['get']}") for s in held["skipped"]]
    return [*rows, *((f"  {name}", "", note) for name, note in held["notes"].items())]


def _change_cells(change: Change) -> tuple[str, str, str, str, str]:
    factor = figure(change.factor)
    return _name(change), _interval(change.before), _interval(change.after), factor, change.verdict


def _name(change: Change) -> str:
    return f"{change.group} {change.name}"


def _interval(ratio: Json | None) -> str:
    if ratio is None:
        return "\u2013"
    return f"{figure(ratio['median'])} ({figure(ratio['low'])} to {figure(ratio['high'])})"


def _span(kind: str, ratio: Json) -> tuple[str, float, float, float]:
    return kind, ratio["low"], ratio["median"], ratio["high"]
