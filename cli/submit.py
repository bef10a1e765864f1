"""``lockstep service submit``: items in, answers out; of what was handed in none is forgotten."""

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import click

from lockstep.cli import screen
from lockstep.cli.cancel import user
from lockstep.cli.kinds import json_object
from lockstep.cli.options import json_option
from lockstep.cli.service import folder_of, service_argument
from lockstep.engine.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_UNFINISHED,
    EXIT_USAGE,
    UsageError,
)

WINDOW = 32  # Items that one command has on their way at once.
IDS_BYTES = 6  # Random ones; ids are input, and decide no bit.
TAKEN = ("stopped", "stuck", "lost", "unreadable")  # Codes of items that were handed in for good.

Object = dict[str, Any]


@click.command("submit", short_help="Hand in items, and get their answers.")
@service_argument
@click.argument("items", nargs=-1, metavar="[ITEM]...")
@click.option("--input", "input_", type=click.File("rb"), metavar="FILE",
              help="JSON Lines, one item each; - is standard input.")  # fmt: skip
@click.option("--client", default="", metavar="NAME", help="Whose they are, for the limits.")
@click.option("--ids", default="", metavar="NAME",
              help="Items without an id get NAME/1, NAME/2, ...  [default: by chance]")  # fmt: skip
@click.option("--no-wait", is_flag=True, help="Do not wait for answers: only until accepted.")
@json_option
def command(
    service: str,
    items: tuple[str, ...],
    input_: Any,
    client: str,
    ids: str,
    no_wait: bool,
    as_json: bool,
) -> int:
    """Hand in items, and print the lines of their answers.

    \b
    Examples:
        lockstep service submit services/vote '{"id": "q1", "text": "why?"}'
        lockstep service submit vote --input items.jsonl > answers.jsonl
        lockstep service submit vote --input items.jsonl --ids monday

    An id that was asked for before is the same item, and is answered as that: whoever lost an
    answer asks again. When too much waits the service says so, and this command asks again after
    the time that it names. What was accepted goes on when this command or the service ends; one
    line then says how to ask again.

    Exit codes: 0, 2 all was refused, 3 an item failed, was refused or is not answered,
    130 interrupted.
    """
    given = [json_object(text, "ITEM") for text in items]
    if input_ is not None:
        given += [json_object(line, "--input") for line in input_ if line.strip()]
    if not given:
        raise UsageError("no items: give some, or --input FILE")
    handed = Handed(given, ids or os.urandom(IDS_BYTES).hex(), not no_wait)
    interrupted = False
    try:
        for asked, answer in handed.answered(service, client or user()):
            _show(asked, answer, as_json)
    except (UsageError, KeyboardInterrupt) as error:
        if not handed.begun:
            raise
        interrupted = isinstance(error, KeyboardInterrupt)
        handed.why = "interrupted" if interrupted else str(error)
    return _end(handed, EXIT_INTERRUPTED if interrupted else handed.exit_code, as_json)


class Handed:
    """Items of one command, and what became of them.

    Args:
        items: In order.
        ids: Those without an id get one that begins with this.
        wait: For answers; else only until they are accepted.

    Attributes:
        answers: So far.
        failed, refused: How many of them.
        unanswered: How many were handed in, and nothing came back but that it goes on.
        why: There is no more to come; empty: all is well.
    """

    def __init__(self, items: list[Object], ids: str, wait: bool) -> None:
        self._items = [
            item if "id" in item else {"id": f"{ids}/{n}", **item}
            for n, item in enumerate(items, 1)
        ]
        self._again = "" if self._items == items else f" with --ids {ids}"
        self._wait = wait
        self.answers: list[Object] = []
        self.failed = self.refused = self.unanswered = 0
        self.why = ""

    @property
    def begun(self) -> bool:
        """Whether anything was handed in."""
        return bool(self.answers or self.unanswered)

    @property
    def exit_code(self) -> int:
        """Of the command, if nobody interrupted it."""
        if not (self.why or self.failed or self.refused):
            return EXIT_OK
        return EXIT_UNFINISHED if self._good or self.unanswered else EXIT_USAGE

    @property
    def state(self) -> str:
        """How many are where, and how to ask again."""
        parts = (
            (self._good, "answered" if self._wait else "accepted"),
            (self.refused, "refused"),
            (self.unanswered, "handed in and not answered"),
            (len(self._items) - self._good - self.refused - self.unanswered, "not handed in"),
        )
        counted = ", ".join(f"{count} {what}" for count, what in parts if count)
        return (
            f"of {len(self._items)} items {counted}; what was accepted goes on, and the same "
            f"command asks again{self._again}"
        )

    def answered(self, service: str, client: str) -> Iterator[tuple[Object, Object]]:
        """Items and answers; of who was refused because too much waits, when there was room.

        Raises:
            UsageError: the service does not run, or went away.
        """
        from lockstep.workers.service.client import Connection, submit

        with Connection(folder_of(service)) as connection:
            items = self._items
            while items:
                busy, pause_s = [], 0.0
                on_their_way = self._counted(items)
                for answer in submit(connection, on_their_way, client, self._wait, WINDOW):
                    asked = answer.pop("asked")
                    if answer.get("code") == "busy":
                        self.unanswered -= 1
                        busy.append(asked)
                        pause_s = answer["retry_after_s"]
                    else:
                        self._take(answer)
                        yield asked, answer
                items = busy
                time.sleep(pause_s)

    def _counted(self, items: list[Object]) -> Iterator[Object]:
        for item in items:
            self.unanswered += 1
            yield item

    def _take(self, answer: Object) -> None:
        self.answers.append(answer)
        if answer.get("code") in TAKEN:
            self.why = str(answer["error"])
            return
        self.unanswered -= 1
        self.refused += "error" in answer
        self.failed += any("error" in line for line in answer.get("answer", []))

    @property
    def _good(self) -> int:
        return sum("error" not in answer for answer in self.answers)


def _show(asked: Object, answer: Object, as_json: bool) -> None:
    """An answer, for people and pipes."""
    if answer.get("code") in TAKEN:
        return  # Said once, at the end.
    if "error" in answer:
        screen.tell("refused", f"{json.dumps(asked)[:60]}: {answer['error']}", "red")
    elif not as_json:
        for line in answer.get("answer", [answer]):
            screen.say(json.dumps(line, ensure_ascii=False))


def _end(handed: Handed, code: int, as_json: bool) -> int:
    """What is left to say. Returns the exit code."""
    more: Object = {}
    if handed.why:
        text = screen.one_line(f"{handed.why}: {handed.state}")
        screen.tell("error", text, "red")
        more = {"error": text, "exit_code": code}
    if as_json:
        counts = {key: getattr(handed, key) for key in ("failed", "refused", "unanswered")}
        screen.say_json({"answers": handed.answers, **counts, **more})
    return code
