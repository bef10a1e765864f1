"""A chat template as a bounded function of its variables: same text or same refusal, everywhere.

A template is a program that came with the model, so everything in it is opt-in: statements
(`template_syntax`), functions, methods and operators (`template_sandbox`), filters and tests
(`template_filters`), places in a text (`template_formats`). Its values are text, numbers of 64
bits, lists, tuples, dicts and ranges, made only of each other (never a set: its order differs from
process to process), and only text, numbers, booleans, none and undefined become text
(`template_values`). Every operation spends steps in proportion to what it reads and makes
(`template_budget`).
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import jinja2

from lockstep.engine.errors import ModelRejected, RequestRejected
from lockstep.workers.inference.template_sandbox import Sandbox
from lockstep.workers.inference.template_syntax import DEEP_SOURCE
from lockstep.workers.inference.template_values import refuse

CHAT_CHARS_MAX = 8 << 20
ERROR_CHARS_MAX = 300


class ChatTemplate:
    """One model's template. It renders one conversation at a time."""

    def __init__(self, source: str, date: datetime, old: bool = False) -> None:
        """Compile.

        Args:
            source: Jinja2.
            date: What `strftime_now` shows.
            old: The run's rules are older than the logic flag WORDS (engine/version.py).

        Raises:
            ModelRejected: malformed, nested too deep, or it has a statement that is not allowed.
        """
        self._sandbox = Sandbox(date, old)
        try:
            self._template = self._sandbox.compiled(source)
        except RecursionError:
            raise ModelRejected(DEEP_SOURCE) from None
        except (jinja2.TemplateError, SyntaxError, ValueError, OverflowError) as error:
            text = error.msg if isinstance(error, SyntaxError) else str(error)
            raise ModelRejected(text[:ERROR_CHARS_MAX]) from None

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text for these variables: texts, numbers, lists and dicts.

        Raises:
            RequestRejected: the template raised, or passed one of the limits.
        """
        self._sandbox.reset()
        parts, size = [], 0
        try:
            for part in self._template.generate(variables):
                parts.append(part)
                size += len(part)
                if size > CHAT_CHARS_MAX:
                    refuse(f"writes more than {CHAT_CHARS_MAX} characters")
        except MemoryError:  # An accident of this process: no verdict on the request.
            raise
        except RecursionError:
            raise RequestRejected("messages: chat template: nested too deep") from None
        except jinja2.TemplateError as error:
            text = f"messages: chat template: {error}"
            raise RequestRejected(text[:ERROR_CHARS_MAX]) from None
        except Exception as error:
            # A template can raise anything that Python can; its texts name our code and change
            # with Python's version.
            name = type(error).__name__
            raise RequestRejected(f"messages: chat template: raises {name}") from None
        return "".join(parts)
