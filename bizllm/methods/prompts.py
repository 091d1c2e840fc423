"""Prompt templates: Jinja in a sandbox, in which a row's text can neither run anything nor leave its fence.

A template writes `<data>` and `</data>` around what comes from a row, and says that what stands between is never an
instruction. Whatever a template puts in from outside loses such marks, in every spelling, so that no row closes the
fence or opens another (the delimiting of Hines et al., Defending against indirect prompt injection attacks with
spotlighting, 2024). A model may still obey what it reads there: what it answers is checked by rules.
"""

from __future__ import annotations

import re
from collections.abc import Set
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

FENCE = "data"
# A mark in any spelling that a reader would take for one (blanks, brackets that fold to these, any case), and the
# beginning of one that ends a value, which the next value might complete.
_BLANKS = r"[\s\u200b-\u200f\u2060\ufeff]*+"
_MARK = re.compile(rf"[<＜﹤](?={_BLANKS}(?:[/／]{_BLANKS})?+(?:{FENCE}\b|(?:d(?:a(?:ta?)?)?)?\Z))", re.I)


class TemplateFault(ValueError):
    """A template that can't be used. The message quotes the template at most, never a row."""


def unfenced(value: Any) -> Any:
    """A value as a template may put it in: marks of the fence lose their bracket."""
    return _MARK.sub("‹", value) if isinstance(value, str) else value


class Template:
    """A prompt with places for what is known of a row."""

    def __init__(self, source: str) -> None:
        """Raises TemplateFault where it is no Jinja."""
        from jinja2 import TemplateSyntaxError, meta

        environment = _environment()
        try:
            self.variables: Set[str] = meta.find_undeclared_variables(environment.parse(source))
            self._compiled = environment.from_string(source)
        except TemplateSyntaxError as fault:
            raise TemplateFault(f"line {fault.lineno}: {fault.message}") from None

    def render(self, **values: Any) -> str:
        """The prompt. Raises TemplateFault where the template asks for what is not there, or not allowed."""
        try:
            return self._compiled.render(**values).strip()
        except Exception as fault:  # whatever a template may do to values; its message may quote them
            raise TemplateFault(f"can't be filled: {type(fault).__name__}") from None


def _environment() -> ImmutableSandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    made = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        finalize=unfenced,
        autoescape=False,  # prompts are no HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.globals.clear()  # no range, no cycler: a template is text with places
    return made
