"""Texts written from facts: ads, product texts, messages; candidates are held against rules, and the best are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from bizllm.errors import nearest
from bizllm.methods import text_rules
from bizllm.methods.documents import folded
from bizllm.methods.text_rules import Rules
from bizllm.models.saved import ModelInfo
from bizllm.tasks import _facts, _prompts, _shots, _texts
from bizllm.tasks._facts import Facts
from bizllm.tasks._shots import ShotExamples, Shots
from bizllm.tasks.base import Learned, Models, Outcome, Reject, Shape, Task, TaskSettings

PROMPT = "generate"
_FACT = {"name": "name", "value": "lid"}
_SAMPLE: dict[str, Any] = {  # what a prompt may ask for
    "audience": "all",
    "broken": ["numbers"],
    "examples": [{"facts": [_FACT], "text": "A lid."}],
    "facts": [_FACT],
    "kind": "text",
    "rules": ["Write."],
}
_TEXT = pa.struct([("text", pa.string()), ("score", pa.float32())])
# One core, a generator of 0.1 billion parameters: a token that is read with others, and one that is written alone.
_SECONDS_PER_READ, _SECONDS_PER_WRITTEN = 1 / 1_000, 1 / 100
_PROMPT_TOKENS = 150


class GenerateSettings(TaskSettings):
    """What `task: generate` takes."""

    facts: list[str] = Field(min_length=1, description="The columns that a text may speak of: text, numbers, dates.")
    audience: str | None = Field(default=None, description="The column that says whom a text is for.")
    generator: str = Field(description="The model that writes: causal_lm, seq2seq, or an endpoint.")
    kind: str = Field(default="advertising text", description="What is to be written, in a few words.")
    prompt: str | None = Field(
        default=None,
        description="A Jinja template instead of the task's own. It may ask for facts (name, value), audience, rules, "
        "examples (facts, text), kind, and broken: the rules that an earlier try broke.",
    )
    examples: ShotExamples | None = Field(
        default=None, description="A table of texts that people approved; those whose facts are nearest are shown."
    )
    shots: PositiveInt = Field(default=3, description="The most examples that a prompt shows.")
    model: str | None = Field(
        default=None, description="A text encoder that finds the examples; without one, words and n-grams do."
    )
    n: PositiveInt = Field(default=1, description="The most texts of a row; fewer where fewer keep the rules.")
    tries: PositiveInt = Field(default=6, description="The most candidates of a row: the first greedy, others drawn.")
    temperature: PositiveFloat = Field(default=0.8, description="Of the candidates that are drawn.")
    max_new_tokens: PositiveInt = Field(default=128, description="The longest candidate, in tokens.")
    min_chars: NonNegativeInt | None = Field(default=None, description="The fewest characters of a text.")
    max_chars: PositiveInt | None = Field(default=None, description="The most characters of a text.")
    min_words: NonNegativeInt | None = Field(default=None, description="The fewest words; a CJK character is one.")
    max_words: PositiveInt | None = Field(default=None, description="The most words; a CJK character is one.")
    must_have: list[str] = Field(default=[], description="Of `facts` those whose value every text must name.")
    banned: list[str] = Field(default=[], description="Words that no text may have, in whatever case.")
    only_known_numbers: bool = Field(
        default=True, description="Whether every number of a text, in digits or in words, must be one of the facts."
    )
    values: dict[str, list[str]] = Field(
        default={},
        description="Of some of `facts` all values that they can have, such as colours: a text must not name another "
        "one than its row's.",
    )
    language: Literal["en", "zh"] | None = Field(default=None, description="The language of the texts.")
    max_input_chars: PositiveInt = Field(default=20_000, description="Longer facts are rejected as too_long.")

    @model_validator(mode="after")
    def _possible(self) -> GenerateSettings:
        if self.n > self.tries:
            raise ValueError(f"`n` {self.n} is more than `tries` {self.tries}")
        for unit in ("chars", "words"):
            least, most = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            if least is not None and most is not None and least > most:
                raise ValueError(f"`min_{unit}` {least} is more than `max_{unit}` {most}")
        if self.model is not None and self.examples is None:
            raise ValueError("`model` is an encoder that finds `examples`, and there are none")
        if any(not word.strip() for word in self.banned):
            raise ValueError("expected words in `banned`; one is blank")
        return self

    @property
    def asked(self) -> Rules:
        """The rules of a text."""
        names = ("min_chars", "max_chars", "min_words", "max_words", "must_have", "banned", "only_known_numbers")
        return Rules(**{name: getattr(self, name) for name in (*names, "values", "language")})


@dataclass
class _Subject:
    """A row on its way.

    examples: that its prompts show. kept: texts that keep the rules, with their scores; seen: every candidate, folded.
    last: the rules that the last one broke; broken: how many broke each. failed: why the generator gave no further one.
    """

    position: int
    facts: Facts
    audience: str | None
    examples: list[dict[str, Any]]
    kept: list[tuple[float, str]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    last: list[str] = field(default_factory=list)
    broken: Counter[str] = field(default_factory=Counter)
    tries: int = 0
    read: int = 0
    written: int = 0
    failed: tuple[str, str] | None = None


class Generate(Task):
    """Candidates by a generator, the first greedy and the others drawn by seed; those that keep every rule
    (`bizllm.methods.text_rules`) are ranked by how many of the facts they name."""

    name = "generate"
    version = 1
    Settings = GenerateSettings
    summary = "Texts that a model writes from a row's facts: ads, product texts, messages. Those that keep the rules."
    takes = "Facts in each row, and, in a table of its own, texts that people approved."
    example = (
        "product_text: {task: generate, input: products, facts: [name, material, price], generator: writer, "
        "must_have: [name], max_chars: 120, banned: [best, cheapest]}"
    )
    shapes = ("row",)
    writes: ClassVar[dict[str, str]] = {
        "text": "string: the best text",
        "texts": "list of {text, score}: those kept, at most `n`, the best first; score in [0, 1]: facts it names",
        "tries": "int: candidates that were written",
        "kept": "int: different candidates that kept every rule",
        "broken": "list of string: the rules that other candidates broke, the most frequent first",
        "input_tokens": "int: what the generator read for the row",
        "output_tokens": "int: what it wrote",
    }
    exhibits = "samples"
    prompts = (PROMPT,)
    settings: GenerateSettings

    _generator: Any = None
    _encoder: Any = None
    _shots: Shots | None = None

    @property
    def shape(self) -> Shape:
        return "row"

    def reads(self) -> list[str]:
        return list(
            dict.fromkeys([*self.settings.facts, *([self.settings.audience] if self.settings.audience else [])])
        )

    def check(self) -> list[tuple[str, object, str, str]]:
        s = self.settings
        named = {f"facts.{i}": column for i, column in enumerate(s.facts)}
        faults = _facts.column_faults(self.source.schema, named | ({"audience": s.audience} if s.audience else {}))
        if len(set(s.facts)) < len(s.facts):
            faults.append(("facts", None, "expected different columns", ""))
        named = {f"must_have.{i}": name for i, name in enumerate(s.must_have)} | {f"values.{n}": n for n in s.values}
        for setting, name in named.items():
            if name not in s.facts:
                expected = f"expected one of `facts`: {', '.join(s.facts)}"
                faults.append((setting, name, expected, nearest(name, s.facts)))
            elif (
                setting.startswith("must_have")
                and name in self.source.schema.names
                and pa.types.is_boolean(self.source.schema.field(name).type)
            ):
                faults.append((setting, name, "a text can't be asked to name yes or no", ""))
        if s.examples is not None:
            faults += _shots.faults(s.examples, self.others["examples"])
        return faults + _prompts.faults(PROMPT, s.prompt, _SAMPLE)

    def columns(self) -> pa.Schema:
        return pa.schema(
            [
                ("text", pa.string()),
                ("texts", pa.list_(_TEXT)),
                ("tries", pa.int32()),
                ("kept", pa.int32()),
                ("broken", pa.list_(pa.string())),
                ("input_tokens", pa.int32()),
                ("output_tokens", pa.int32()),
            ]
        )

    def rules(self) -> dict[str, str]:
        s = self.settings
        told = {
            "the text is not blank, and the first of the texts": "trim(text) <> '' AND texts[1].text = text",
            f"a row has 1 to {s.n} texts, of as many kept": f"len(texts) BETWEEN 1 AND {s.n} AND len(texts) <= kept",
            "no more are kept than were tried": f"kept <= tries AND tries <= {s.tries}",
            "scores lie in [0, 1]": "texts[-1].score >= 0 AND texts[1].score BETWEEN texts[-1].score AND 1",
        }
        lengths = "list_transform(texts, lambda one: length(one.text))"
        if s.max_chars is not None:
            told[f"no text is longer than {s.max_chars} characters"] = f"list_max({lengths}) <= {s.max_chars}"
        if s.min_chars is not None:
            told[f"no text is shorter than {s.min_chars} characters"] = f"list_min({lengths}) >= {s.min_chars}"
        return told

    def models(self) -> dict[str, str]:
        return {"generator": self.settings.generator} | (
            {"encoder": self.settings.model} if self.settings.model else {}
        )

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> list[tuple[str, object, str, str]]:
        faults = _texts.encoder_faults(self.name, self.settings.model, infos.get("encoder"))
        return faults + _texts.generator_faults(self.settings.generator, infos.get("generator"))

    def depends_on_date(self) -> bool:
        return False

    def caveat(self) -> str:
        return "Rules see no claim without a number, and no right number said of the wrong thing: read a sample first."

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        s, written = self.settings, self.written(rows)
        read = self._calls(rows) * _PROMPT_TOKENS * (1 + (s.shots if s.examples else 0)) + text_bytes // 3
        return read + written, read * _SECONDS_PER_READ + written * _SECONDS_PER_WRITTEN

    def written(self, rows: int) -> int:
        return self._calls(rows) * self.settings.max_new_tokens // 2

    def _calls(self, rows: int) -> int:
        return rows * min(self.settings.tries, self.settings.n + 1)

    def open(self, models: Models) -> None:
        self._encoder = models.encoder(self.settings.model) if self.settings.model else None
        self._generator = models.generator(self.settings.generator)
        self._generator.max_input_tokens(self.settings.max_new_tokens)  # raises where the window has no room
        self._shots = Shots(self.learned, self._encoder) if self.learned is not None else None

    def learn(self, tables: Mapping[str, pa.Table], previous: Learned | None = None) -> Learned:
        assert self.settings.examples is not None
        return _shots.learn(tables["examples"], self.settings.examples, self._encoder, self.settings.max_input_chars)

    def answer(self, batch: pa.Table) -> Outcome:
        subjects, rejects, tokens = self._subjects(batch)
        open_ = self._fitting(subjects, rejects)
        fitting = list(open_)
        for attempt in range(self.settings.tries):
            if not open_:
                break
            self._try(open_, attempt)
            open_ = [one for one in open_ if len(one.kept) < self.settings.n and one.failed is None]
        rows, positions = [], []
        for subject in fitting:
            if subject.kept:
                rows.append(self._row(subject))
                positions.append(subject.position)
            else:
                rejects[subject.position] = subject.failed or _why(subject)
        tokens += sum(subject.read + subject.written for subject in fitting)
        return Outcome(
            np.array(positions, np.int64),
            pa.Table.from_pylist(rows, schema=self.columns()),
            [Reject(i, *rejects[i]) for i in sorted(rejects)],
            tokens,
            _facts.exhibit(
                [subject.facts for subject in fitting if subject.kept],
                [(f"{row['tries']} tries", row["text"], row["texts"][0]["score"]) for row in rows],
            ),
        )

    def _subjects(self, batch: pa.Table) -> tuple[list[_Subject], dict[int, tuple[str, str]], int]:
        """(the rows that can be asked about; code and message of the others, by position; tokens of the encoder)."""
        s = self.settings
        facts, unusable = _facts.read(batch, s.facts, s.max_input_chars)
        audiences = _facts.read(batch, [s.audience], s.max_input_chars)[0] if s.audience else [{}] * len(facts)
        for row, found in enumerate(facts):
            missing = [name for name in s.must_have if name not in found]
            if missing:
                unusable.setdefault(row, ("no_value", f"a fact that must be named has no value: {', '.join(missing)}"))
        usable = [row for row in range(len(facts)) if row not in unusable]
        shown: list[list[dict[str, Any]]] = [[] for _ in usable]
        tokens = 0
        if self._shots is not None:
            shown, tokens = self._shots.nearest([facts[row] for row in usable], s.shots)
        made = [
            _Subject(row, facts[row], audiences[row].get(s.audience or ""), examples)
            for row, examples in zip(usable, shown, strict=True)
        ]
        return made, unusable, tokens

    def _prompt(self, subject: _Subject) -> str:
        s = self.settings
        return _prompts.template(PROMPT, s.prompt).render(
            kind=s.kind,
            facts=_facts.listed(subject.facts),
            audience=subject.audience,
            examples=subject.examples,
            rules=s.asked.in_words({name: subject.facts[name] for name in s.must_have}),
            broken=subject.last,
        )

    def _fitting(self, subjects: list[_Subject], rejects: dict[int, tuple[str, str]]) -> list[_Subject]:
        """The subjects whose prompt fits the window, with fewer examples where it must be; others become rejects."""
        limit, todo, fitting = self._generator.max_input_tokens(self.settings.max_new_tokens), subjects, []
        while todo:
            longer = []
            counts = self._generator.count([self._longest(subject) for subject in todo])
            for subject, tokens in zip(todo, counts.tolist(), strict=True):
                if tokens <= limit:
                    fitting.append(subject)
                elif subject.examples:
                    subject.examples = subject.examples[1:]  # the least similar one
                    longer.append(subject)
                else:
                    rejects[subject.position] = ("too_long", "the facts are longer than the generator's window")
            todo = longer
        return sorted(fitting, key=lambda subject: subject.position)

    def _longest(self, subject: _Subject) -> str:
        """The prompt at its longest: after a try that broke every rule."""
        subject.last = list(text_rules.NAMES)
        prompt = self._prompt(subject)
        subject.last = []
        return prompt

    def _try(self, subjects: list[_Subject], attempt: int) -> None:
        """A candidate of each: the first greedy, later ones drawn, and told what the one before broke."""
        s = self.settings
        made = self._generator.generate(
            [self._prompt(subject) for subject in subjects],
            s.max_new_tokens,
            temperature=s.temperature if attempt else 0.0,
            seed=attempt,
        )
        for i, subject in enumerate(subjects):
            if i in made.failed:
                subject.failed = made.failed[i]
                continue
            text = _unquoted(made.texts[i])
            subject.tries += 1
            subject.read += int(made.input_tokens[i])
            subject.written += int(made.output_tokens[i])
            subject.last = s.asked.broken(text, subject.facts, bool(made.finished[i]))
            subject.broken.update(subject.last)
            if not subject.last and folded(text) not in subject.seen:
                subject.kept.append((text_rules.mentioned(text, subject.facts), text))
            subject.seen.add(folded(text))

    def _row(self, subject: _Subject) -> dict[str, Any]:
        best = sorted(subject.kept, key=lambda one: -one[0])[: self.settings.n]  # of equal ones the earlier
        return {
            "text": best[0][1],
            "texts": [{"text": text, "score": score} for score, text in best],
            "tries": subject.tries,
            "kept": len(subject.kept),
            "broken": _by_count(subject.broken),
            "input_tokens": subject.read,
            "output_tokens": subject.written,
        }


def _unquoted(text: str) -> str:
    """Without the quotation marks that some models put around all they say."""
    pairs = ('""', "“”", "「」")
    inside = text[1:-1].strip()
    return inside if len(text) > 1 and text[0] + text[-1] in pairs and not set(inside) & {text[0], text[-1]} else text


def _by_count(broken: Counter[str]) -> list[str]:
    return sorted(broken, key=lambda name: (-broken[name], name))


def _why(subject: _Subject) -> tuple[str, str]:
    """Code and message of a row without a text; rules by name, and never a candidate."""
    if subject.seen == {""}:
        return "no_answer", "the generator wrote nothing"
    most = ", ".join(_by_count(subject.broken)[:3])
    return "rules_broken", f"no candidate of {subject.tries} kept the rules; most often broken: {most}"


TASK = Generate
