"""The templates that tasks ask generators by: files of their own in prompts/, which `bizllm tasks show` shows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

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


def faults(name: str, own: str | None, sample: Mapping[str, Any]) -> list[tuple[str, object, str, str]]:
    """The faults of a job's own prompt, for `Task.check`. sample: all that it may ask for, with values to try it on."""
    try:
        made = template(name, own)
        unknown = sorted(made.variables - sample.keys())
        if not unknown:
            made.render(**sample)
    except TemplateFault as fault:
        return [("prompt", None, f"no template: {fault}", "")]
    expected = f"no such thing to ask for; there are {', '.join(sample)}"
    return [("prompt", f"{{{{ {one} }}}}", expected, nearest(one, sample)) for one in unknown]
