"""infra/image/Dockerfile, read: its instructions, stage by stage."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra/image"


@dataclass
class Stage:
    """One FROM and what follows. steps: (instruction, text)."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def instructions() -> list[tuple[str, str]]:
    """(instruction, its text), lines that go on joined, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", (FOLDER / "Dockerfile").read_text(), flags=re.M)
    joined = re.sub(r"\\\n\s*", " ", text)
    return [(line.split()[0], line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


def stages() -> list[Stage]:
    """In their order; what stands before the first FROM is left out."""
    found: list[Stage] = []
    for name, text in instructions():
        if name == "FROM":
            base, _, stage = text.split()
            found.append(Stage(base, stage))
        elif found:
            found[-1].steps.append((name, text))
    return found


def pairs(text: str) -> list[tuple[str, str]]:
    """`A=1 B="x y"` as pairs."""
    return [(key, value) for key, _, value in (part.partition("=") for part in shlex.split(text))]


def filled(text: str, values: dict[str, str]) -> str:
    """`${NAME}` replaced, as the builder does in all instructions but RUN."""
    return re.sub(r"\$\{(\w+)\}", lambda found: values.get(found[1], ""), text)
