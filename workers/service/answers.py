"""Answers: what became of each item of one run. In the output file, or on its way there.

The output file is in item order, an answer is given as soon as its item has come to its end. The
file's bytes follow from the answers, so where one lies in it is known without looking.
"""

from array import array
from pathlib import Path

from lockstep.workers.folder import OUTPUT


class Answers:
    """Of one run.

    Args:
        run: Its folder.
        ends: As `History.ends`; of a new run nothing but the 0.
    """

    def __init__(self, run: Path, ends: "array[int] | None" = None) -> None:
        self._path = run / OUTPUT
        self._ends = ends if ends is not None else array("Q", [0])
        self._early: dict[int, bytes] = {}  # Closed before an item in front of them.

    def add(self, number: int, lines: bytes) -> None:
        """An item has come to its end; again: nothing.

        Args:
            number: Of the item.
            lines: JSON objects with commas between them.
        """
        if number < len(self._ends):
            return
        self._early.setdefault(number, lines)
        while (said := self._early.pop(len(self._ends), None)) is not None:
            # In the file there is a line end behind each object.
            self._ends.append(self._ends[-1] + len(said) + bool(said))

    def take_over(self, older: "Answers") -> None:
        """Answers of the same run that were given, and are not in its output file yet."""
        for number, lines in older._early.items():
            self.add(number, lines)

    def get(self, number: int) -> bytes | None:
        """Lines of an item as `add` took them; None: it goes on.

        Raises:
            OSError: the output file cannot be read.
        """
        if number >= len(self._ends):
            return self._early.get(number)
        begin, end = self._ends[number - 1], self._ends[number]
        with open(self._path, "rb") as file:
            file.seek(begin)
            return file.read(end - begin).rstrip(b"\n").replace(b"\n", b",")
