"""A page that is whole in itself: no network, no script but one that is named by its hash.

Everything that is shown is text that was escaped; what a browser may do is written into the page.
Colours follow the system or the reader's choice, without a script.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from lockstep.engine.version import VERSION
from lockstep.workers.pictures.scale import figure as number
from lockstep.workers.pictures.svg import STYLE, words

PAGE_STYLE = Path(__file__).with_name("page.css")
ROWS_OPEN = 12  # A table of so many rows is shown whole.

Cell = str | float | int | None


def page(title: str, subtitle: str, sections: Iterable[tuple[str, str]], script: str = "") -> str:
    """An HTML document.

    Args:
        title: Plain text.
        subtitle: Likewise.
        sections: (title in plain text, content in HTML), empty ones are left out.
        script: Of ours; empty: none.
    """
    style = "\n".join(path.read_text(encoding="utf-8") for path in (STYLE, PAGE_STYLE))
    shown = [(name, content) for name, content in sections if content]
    links = " ".join(f'<a href="#s{n}">{words(name)}</a>' for n, (name, _) in enumerate(shown))
    body = "\n".join(
        f'<section id="s{n}"><h2>{words(name)}</h2>\n{content}</section>'
        for n, (name, content) in enumerate(shown)
    )
    return "\n".join([
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(style, script)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{words(title)}</title>\n<style>{style}</style>\n</head>\n<body>",
        f"<header><div><h1>{words(title)}</h1>{said(subtitle)}</div>{_themes()}</header>",
        f'<main><nav aria-label="sections">{links}</nav>\n{body}</main>',
        f"<footer>Made by Lockstep {words(VERSION)}. This page asks no network for anything."
        "</footer>",
        *([f"<script>{script}</script>"] if script else []),
        "</body>\n</html>\n",
    ])  # fmt: skip


def figure(title: str, picture: str, note: str = "", below: str = "", kind: str = "") -> str:
    """A picture with its title, what is to be said of it, and its numbers.

    Args:
        title: Plain text.
        picture: SVG.
        note: Plain text.
        below: HTML, as a `table`.
        kind: A class: ``wide``, ``wide timeline``.
    """
    caption = f"<figcaption>{words(note)}</figcaption>" if note else ""
    return (f'<figure class="{kind}"><h3>{words(title)}</h3><div class="scroll">{picture}</div>'
            f"{caption}{below}</figure>")  # fmt: skip


def figures(parts: Iterable[str]) -> str:
    """Figures side by side as far as there is room; nothing of none."""
    inside = "\n".join(part for part in parts if part)
    return f'<div class="grid-of">\n{inside}\n</div>' if inside else ""


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str = "") -> str:
    """A table; a long one scrolls. Numbers stand at the right."""
    right = [all(not isinstance(row[n], str) for row in rows) for n in range(len(head))]
    titles = "".join(
        f'<th scope="col"{" class=n" * at_right}>{words(name)}</th>'
        for name, at_right in zip(head, right, strict=True)
    )
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    above = f"<caption>{words(caption)}</caption>" if caption else ""
    kind = "table whole" if len(rows) <= ROWS_OPEN else "table"
    return (f'<div class="{kind}" tabindex="0"><table>{above}<thead><tr>{titles}</tr></thead>\n'
            f"<tbody>{body}</tbody></table></div>")  # fmt: skip


def folded(name: str, content: str) -> str:
    """Content that is there for who asks for it."""
    return f"<details><summary>{words(name)}</summary>{content}</details>" if content else ""


def numbers(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """The numbers behind a picture, folded."""
    return folded("numbers", table(head, rows)) if rows else ""


def cards(values: Iterable[tuple[str, str]]) -> str:
    """(name, figure): what one wants to know first."""
    inside = "".join(f"<div><span>{words(k)}</span><b>{words(v)}</b></div>" for k, v in values)
    return f'<div class="cards">{inside}</div>'


def said(text: str, kind: str = "faint") -> str:
    """A paragraph; nothing of nothing."""
    return f'<p class="{kind}">{words(text)}</p>' if text else ""


def listed(lines: Iterable[str]) -> str:
    """A list; nothing of none."""
    inside = "".join(f"<li>{words(line)}</li>" for line in lines)
    return f"<ul>{inside}</ul>" if inside else ""


def _cell(value: Cell) -> str:
    if isinstance(value, str):
        kind = f' class="{value}"' if value in ("better", "worse") else ""
        return f"<td{kind}>{words(value)}</td>"
    return f'<td class="n">{words(number(value))}</td>'


def _themes() -> str:
    choices = (("auto", " checked"), ("light", ""), ("dark", ""))
    inside = "".join(
        f'<label><input type="radio" name="theme" id="{name}"{on}>{name}</label>'
        for name, on in choices
    )
    return f'<fieldset class="theme"><legend>colours</legend>{inside}</fieldset>'


def _policy(style: str, script: str) -> str:
    allowed = f"style-src {_hash(style)}" + (f"; script-src {_hash(script)}" if script else "")
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
