"""The templates that tasks ask generators by: files of their own in prompts/, which `bizllm tasks show` shows."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from bizllm.errors import nearest
from bizllm.methods.prompts import Template, TemplateFault

_FOLDER = Path(__file__).parent / "prompts"


def source(name: str) -> str:
    """The template of that name, as it is written."""
    return (_FOLDER / f"{name}.jinja").read_text("utf-8")


@cache
def template(name: str, own: str | None = None) -> Template:
    """The template of that name; `own`, what the job has instead. Raises TemplateFault."""
    return Template(source(name) if own is None else own)


def faults(name: str, own: str | None, known: list[str]) -> list[tuple[str, object, str, str]]:
    """The fault of a job's own prompt, for `Task.check`. known: what it may ask for."""
    try:
        wanted = template(name, own).variables
    except TemplateFault as fault:
        return [("prompt", None, f"no template: {fault}", "")]
    expected = f"expected {', '.join(known)}"
    return [("prompt", f"{{{{ {one} }}}}", expected, nearest(one, known)) for one in sorted(wanted - {*known})]
