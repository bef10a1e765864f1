"""Stop strings: the first place in a growing text where one of them is.

They are looked for in text, not in tokens, so it does not matter how a string is cut into tokens.
Each piece of text is searched once, with as much before it as a string may reach back.
"""

from collections.abc import Sequence


class Stops:
    """The stop strings of one answer.

    Attributes:
        text: What came so far; cut before the first stop string once there is one.
        found: That string, or None.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        """``strings`` are not empty."""
        self._strings = tuple(strings)
        self.text = ""
        self.found: str | None = None

    def feed(self, piece: str, *, search: bool = True) -> bool:
        """Take text; whether a stop string ends in it (that of the lowest place, then the first).

        Without ``search`` nothing that ends in this piece counts.
        """
        before = len(self.text)
        self.text += piece
        if not search or not piece:
            return False
        places = [
            (place, number)
            for number, string in enumerate(self._strings)
            if (place := self.text.find(string, max(0, before - len(string) + 1))) >= 0
        ]
        if not places:
            return False
        place, number = min(places)
        self.text, self.found = self.text[:place], self._strings[number]
        return True
