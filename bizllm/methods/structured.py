"""Answers that are JSON by a schema: asked for, held against it, and asked for once more with what was wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bizllm.methods.map_reduce import Written
from bizllm.methods.prompts import unfenced

Counts = npt.NDArray[np.int64]
_SHOWN_CHARS = 2_000  # of a wrong answer that the second prompt quotes


class Misfit(ValueError):
    """A text that is no JSON by the schema. place: where and by which of the schema's rules; it quotes nothing that the
    model wrote, as the message may."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.place = place


@dataclass
class Answer:
    """One prompt's. value: by the schema, or None where `failed` (code and message) says why there is none."""

    value: Any = None
    failed: tuple[str, str] | None = None
    repaired: bool = False
    input_tokens: int = 0
    output_tokens: int = 0


def read(text: str, schema: Mapping[str, Any]) -> Any:
    """The JSON object of an answer, which may stand in a code block or between words. Raises Misfit.

    Half an object stays half: nothing is completed, since what it would have said is not known.
    """
    from jsonschema import Draft202012Validator

    start = text.find("{")
    if start < 0:
        raise Misfit("no JSON object", "there is no JSON object in it")
    try:
        value, _ = json.JSONDecoder(parse_constant=_no_number).raw_decode(text[start:])
    except (ValueError, RecursionError):
        raise Misfit("no valid JSON", "it is no valid JSON") from None
    errors = sorted(Draft202012Validator(schema).iter_errors(value), key=lambda error: list(map(str, error.path)))
    for error in errors[:1]:
        where = ".".join(map(str, error.path)) or "the object"
        raise Misfit(f"{where}: {error.validator}", f"{where}: {error.message}")
    return value


def ask(
    prompts: Sequence[str],
    schema: Mapping[str, Any],
    limit: int,
    count: Callable[[Sequence[str]], Counts],
    generate: Callable[[Sequence[str]], Written],
) -> list[Answer]:
    """An answer to each prompt, in their order; a misfit is asked for once more, where that fits the window.

    limit: the most tokens of a prompt. count: tokens of prompts (n,). generate: held to the schema, where the engine
    can do that.
    """
    answers = [Answer() for _ in prompts]
    wrong = _round(answers, list(range(len(prompts))), prompts, schema, generate)
    again = {i: _again(prompts[i], text, misfit) for i, (text, misfit) in wrong.items()}
    sizes = count(list(again.values())) if again else np.zeros(0, np.int64)
    fits = [i for i, size in zip(again, sizes.tolist(), strict=True) if size <= limit]
    still = _round(answers, fits, [again[i] for i in fits], schema, generate) if fits else {}
    for i, (_, misfit) in wrong.items():
        if i in still or i not in fits:
            place = still[i][1].place if i in still else misfit.place
            answers[i].failed = ("invalid_answer", f"no answer by the schema, asked twice: {place}")
        else:
            answers[i].repaired = answers[i].failed is None
    return answers


def _round(
    answers: list[Answer],
    places: Sequence[int],
    prompts: Sequence[str],
    schema: Mapping[str, Any],
    generate: Callable[[Sequence[str]], Written],
) -> dict[int, tuple[str, Misfit]]:
    """Ask the prompts of these places; (text, what is wrong) of those whose answer does not fit."""
    written, wrong = generate(prompts), {}
    for row, i in enumerate(places):
        answers[i].input_tokens += int(written.input_tokens[row])
        answers[i].output_tokens += int(written.output_tokens[row])
        if row in written.failed:
            answers[i].failed = written.failed[row]
        elif not written.texts[row]:
            answers[i].failed = ("no_answer", "the generator wrote nothing")
        else:
            try:
                answers[i].value = read(written.texts[row], schema)
            except Misfit as misfit:
                wrong[i] = (written.texts[row], misfit)
    return wrong


def _again(prompt: str, text: str, misfit: Misfit) -> str:
    """The prompt with what was answered, and what is wrong with it."""
    return (
        f"{prompt}\n\nThe answer was:\n<data>\n{unfenced(text[:_SHOWN_CHARS])}\n</data>\n"
        f"That is wrong: {unfenced(str(misfit)[:_SHOWN_CHARS])}\nAnswer again, with the JSON object alone:"
    )


def _no_number(name: str) -> float:
    raise ValueError(name)  # NaN, Infinity: no JSON
