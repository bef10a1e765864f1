"""SVG as text: elements, words that are safe in them, and a picture that says what it shows."""

from collections.abc import Iterable
from html import escape
from pathlib import Path

STYLE = Path(__file__).with_name("picture.css")  # Colours and lines, in light and in dark.
LETTER_PX = 6.3  # Width of a letter of 12 px, about,
DIGIT_PX = 7.7  # and of a digit, which are wider, at most.
COLOURS = 8  # Classes c0 to c7 of the style.
OTHER = "other"


def plain(text: object) -> str:
    """Text with everything spelt out that does not print: controls, bidi marks, lone surrogates."""
    return "".join(c if c.isprintable() else _spelt(ord(c)) for c in str(text))


def words(text: object) -> str:
    """`plain` text, escaped for HTML and SVG."""
    return escape(plain(text))


def cut(text: object, width: float) -> str:
    """`plain` text, shortened to so many pixels."""
    said, most = plain(text), max(int(width / LETTER_PX), 2)
    return said if len(said) <= most else said[: most - 1] + "\u2026"


def tag(name: str, inside: str = "", /, **attributes: object) -> str:
    """An element of SVG. Attributes are escaped, ``inside`` is not; ``class_`` is class."""
    said = "".join(f' {_key(key)}="{_value(value)}"' for key, value in attributes.items())
    return f"<{name}{said}>{inside}</{name}>" if inside else f"<{name}{said}/>"


def label(x: float, y: float, text: object, kind: str = "t", anchor: str = "middle") -> str:
    """Words at a place. ``kind``: a class of the style."""
    return tag("text", words(text), class_=kind, x=x, y=y, text_anchor=anchor)


def hint(text: object) -> str:
    """What is shown when somebody points at the element that this is put into."""
    return f"<title>{words(text)}</title>"


def colour(number: int) -> str:
    """The class of the n-th colour."""
    return f"c{number % COLOURS}"


def few(weights: Iterable[tuple[str, float]]) -> list[str]:
    """Names that get a colour of their own: all if there are enough, else those of most weight,
    and one is left for `OTHER`."""
    sums: dict[str, float] = {}
    for name, weight in weights:
        sums[name] = sums.get(name, 0.0) + weight
    if len(sums) <= COLOURS:
        return list(sums)
    heavy = sorted(sums, key=lambda name: -sums[name])[: COLOURS - 1]
    return [name for name in sums if name in heavy]


def picture(title: str, about: str, width: float, height: float, parts: Iterable[str]) -> str:
    """A picture for a page that has the style.

    Args:
        title: What it shows, for who cannot see it.
        about: What there is to see in it, likewise.
        width: In pixels, of its own; a page may scale it.
        height: Likewise.
        parts: Elements.
    """
    said = f"<title>{words(title)}</title><desc>{words(about)}</desc>"
    return tag(
        "svg", "\n".join([said, *parts]), xmlns="http://www.w3.org/2000/svg", role="img",
        viewBox=f"0 0 {_value(width)} {_value(height)}", width=width, height=height,
    )  # fmt: skip


def document(title: str, about: str, width: float, height: float, parts: Iterable[str]) -> str:
    """A picture that is a file of its own: with its style, and paper below it."""
    style = f"<style>{STYLE.read_text(encoding='utf-8')}</style>"
    paper = tag("rect", class_="paper", width=width, height=height)
    return picture(title, about, width, height, [style, paper, *parts]) + "\n"


def _key(name: str) -> str:
    return name if name == "viewBox" else name.rstrip("_").replace("_", "-")


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return words(value)


def _spelt(code: int) -> str:
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
