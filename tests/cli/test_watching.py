"""What `lockstep top` shows on a terminal, and what its keys change."""

from typing import Any

import pytest

from lockstep.cli.watching import COLUMNS, HINT, Watching, short

NOBODY: dict[str, Any] = dict.fromkeys(("pid", "cpu_s", "memory_bytes"))


def _agent(index: int, name: str, **more: Any) -> dict[str, Any]:
    row = {"index": index, "name": name, "pid": 100 + index, "state": "idle", "cpu_s": 0.0}
    figures = dict.fromkeys(("step", "turns", "fuel", "mailbox", "requests"), 0)
    return {**row, "memory_bytes": 2_345_678, **figures, "stall_s": 0.0, **more}


def _found(*agents: dict[str, Any]) -> dict[str, Any]:
    engine = {**NOBODY, "step": 7, "rows": 3, "tickets_waiting": 1, "tokens": 9}
    return {
        "state": "running",
        "reason": "",
        "agents": list(agents),
        "inference": {**engine, "tokens_per_s": 12},
        "supervisor": {"pid": 99, "cpu_s": 1.0, "memory_bytes": 30_000_000},
    }


def _watching(*agents: dict[str, Any]) -> Watching:
    watching = Watching()
    watching.take(_found(*agents), 0.0)
    return watching


def _names(watching: Watching, *keys: str, height: int = 40) -> list[str]:
    """First words of the table's rows after some keys."""
    for key in keys:
        assert watching.press(key)
    lines = watching.render(120, height, keys=True)
    return [line.split()[0] for line in lines[5:-1]]


THREE = (
    _agent(0, "b.0", turns=5, mailbox=2),
    _agent(1, "a", turns=9, state="running"),
    _agent(2, "b.1", turns=5, mailbox=4, cpu_s=None, pid=None, memory_bytes=None),
)


def test_rows_are_in_order_of_agents_and_keys_sort_reverse_and_filter_them() -> None:
    assert _names(_watching(*THREE)) == ["b.0", "a", "b.1"]
    assert _names(_watching(*THREE), "s") == ["a", "b.0", "b.1"]
    assert _names(_watching(*THREE), "s", "r") == ["b.1", "b.0", "a"]
    assert _names(_watching(*THREE), "/", "b", ".", "enter") == ["b.0", "b.1"]
    assert _names(_watching(*THREE), "/", "R", "u", "n", "enter") == ["a"]
    assert _names(_watching(*THREE), "/", "b", "x", "backspace", "escape") == ["b.0", "a", "b.1"]
    assert _names(_watching(*THREE), "/", "q", "enter", "escape") == ["b.0", "a", "b.1"]


def test_figures_fall_equals_keep_their_order_and_the_unknown_comes_last() -> None:
    def by(title: str, *more: str) -> list[str]:
        watching = _watching(*THREE)
        for _ in COLUMNS:
            watching.press("right")
            head = watching.render(200, 20, keys=True)[4].split()
            if f"{title}v" in head or f"{title}^" in head:
                return _names(watching, *more)
        raise AssertionError(title)

    assert by("turns") == ["a", "b.0", "b.1"]
    assert by("turns", "r") == ["b.0", "b.1", "a"]
    assert by("mailbox") == ["b.1", "b.0", "a"]
    assert by("mem") == by("mem", "r") == ["b.0", "a", "b.1"]


def test_cpu_is_the_share_since_the_look_before() -> None:
    watching = _watching(_agent(0, "busy", cpu_s=1.0), _agent(1, "calm", cpu_s=1.0))
    assert "-" in watching.render(120, 20, keys=False)[5].split()
    watching.take(_found(_agent(0, "busy", cpu_s=1.5), _agent(1, "calm", cpu_s=1.0)), 2.0)
    lines = watching.render(120, 20, keys=False)
    assert [line.split()[4] for line in lines[5:7]] == ["25", "0"]
    assert lines[1] == "supervisor  pid 99 0% cpu 30M"


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_what_does_not_fit_is_left_out_and_no_line_is_too_long(width: int) -> None:
    watching = _watching(*(_agent(n, f"solver.{n}", fuel=10**12) for n in range(30)))
    lines = watching.render(width, 12, keys=True)
    assert len(lines) == 12 and max(map(len, lines)) <= width - 1
    heads = {20: "agent  state", 40: "agent      state  cpu%  turns  mailbox"}
    if width in heads:
        assert lines[4].split() == heads[width].split()
    if width == 200:
        assert lines[4].split() == [column.head + "^" * (column.key == "index")
                                    for column in COLUMNS]  # fmt: skip


def test_what_it_is_sorted_by_is_shown_however_narrow() -> None:
    watching = _watching(*THREE)
    for column in COLUMNS[:1] + COLUMNS[2:]:
        watching.press("s")
        heads = watching.render(30, 12, keys=True)[4].split()
        assert {f"{column.head}v", f"{column.head}^"} & set(heads)


def test_a_thousand_agents_are_scrolled_and_the_ends_are_kept() -> None:
    watching = _watching(*(_agent(n, f"a.{n}") for n in range(1000)))

    def first_and_last(*keys: str) -> tuple[str, str, str]:
        for key in keys:
            watching.press(key)
        lines = watching.render(80, 24, keys=True)
        return lines[5].split()[0], lines[-3].split()[0], lines[-2]

    assert first_and_last() == ("a.0", "a.16", "... agents 1 to 17 of 1000")
    assert first_and_last("down", "j")[0] == "a.2"
    assert first_and_last("page down")[0] == "a.19"
    assert first_and_last("end") == ("a.983", "a.999", "... agents 984 to 1000 of 1000")
    assert first_and_last("down", "down")[0] == "a.983"
    assert first_and_last("page up")[0] == "a.966"
    assert first_and_last("home", "up")[0] == "a.0"
    # A filter that leaves fewer shows them all.
    assert first_and_last("end", "/", "9", "9", "9", "enter")[0] == "a.999"


def test_help_pause_and_the_bottom_line() -> None:
    watching = _watching(*THREE)
    assert watching.render(80, 20, keys=True)[-1] == HINT
    watching.press(" ")
    assert watching.paused and watching.render(80, 20, keys=True)[-1].startswith("paused  ")
    watching.press("?")
    assert any(line.startswith("s, S") for line in watching.render(80, 20, keys=True))
    assert watching.press("q")  # Any key takes the help away,
    assert not watching.press("q")  # and then it quits.
    watching.press("/")
    watching.press("q")
    assert watching.render(80, 20, keys=True)[-1] == "filter: q_"


def test_text_of_a_guest_cannot_reach_the_terminal() -> None:
    watching = _watching(_agent(0, "evil\x1b[2J"))
    watching.press("/")
    assert all(line.isprintable() for line in watching.render(80, 20, keys=True))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 2), (80, 1), (3, 30)])
def test_a_terminal_of_any_size_does_not_break_it(size: tuple[int, int]) -> None:
    lines = _watching(*THREE).render(*size, keys=True)
    assert len(lines) <= size[1] and all(len(line) < size[0] for line in lines)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (9949, "9.9k"), (9951, "10k"), (999_499, "999k"),
     (999_500, "1.0M"), (2.345e6, "2.3M"), (10**12, "1.0T"), (10**21, "1000E")],
)  # fmt: skip
def test_numbers_are_short(number: float, text: str) -> None:
    assert short(number) == text
