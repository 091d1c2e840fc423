"""Summaries, one a row or one for a group of rows: of the text's own sentences, or written by a generating model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, PositiveInt, model_validator

from bizllm.errors import Fault, UserError, nearest
from bizllm.methods import claims, documents, extract, map_reduce, sentences
from bizllm.methods.prompts import unfenced
from bizllm.models.saved import ModelInfo
from bizllm.models.writer import Failure
from bizllm.tasks import _prompts, _texts
from bizllm.tasks.base import Combined, Groups, Models, Outcome, Reject, Shape, Task, TaskSettings

_SPAN = pa.struct([("document", pa.int32()), ("start", pa.int32()), ("end", pa.int32())])
_EXHIBIT = pa.schema(
    [("title", pa.string()), ("source", pa.string()), ("result", pa.string()), ("score", pa.float64())]
)
_SAMPLES = 8
_SAMPLE_CHARS = 2_000
# One core, bfloat16 (AVX512-BF16), MiniLM; float32 takes about 2.2 times as long.
_BYTES_PER_TOKEN = 3.6
_SECONDS_PER_TOKEN = 1 / 4_200
_SECONDS_PER_BYTE = 1.2e-6  # splitting, n-grams, choosing
# The same core, a generator of 0.1 billion parameters: a token that is read with others, and one that is written alone.
_SECONDS_PER_READ, _SECONDS_PER_WRITTEN = 1 / 1_000, 1 / 100

PLACE = "{text}"  # in a job's own prompt: where the text goes
PROMPT = "summarize"  # the template
MAX_NEW_TOKENS = 128
_NOTHING = "no_answer", "the generator wrote nothing"
_NO_END = "no_answer", "the text is longer than the window, and the summaries of its parts did not get short enough"


class SummarizeSettings(TaskSettings):
    """What `task: summarize` takes."""

    text: str = Field(description="The text column: string, or a list of strings (several texts, one summary a row).")
    per: list[str] = Field(default=[], description="Group columns: one summary for each group. Empty: one a row.")
    model: str | None = Field(
        default=None, description="A text encoder, read for Latin-script texts; without one, character n-grams decide."
    )
    generator: str | None = Field(
        default=None,
        description="A causal_lm or seq2seq model that writes the summary; without one, sentences are chosen.",
    )
    prompt: str | None = Field(
        default=None,
        description="What the generator is asked, with {text} for the text; by default to summarize it in a few short "
        "sentences in its own language. A fine-tuned model wants the prompt that it was trained with.",
    )
    max_new_tokens: PositiveInt | None = Field(
        default=None,
        description=f"Length of a written summary at most, in tokens; {MAX_NEW_TOKENS} where nothing is set.",
    )
    max_sentences: PositiveInt | None = Field(default=None, description="Length of a summary; 3 where nothing is set.")
    max_chars: PositiveInt | None = Field(default=None, description="Length of a summary in characters instead.")
    max_input_chars: PositiveInt = Field(default=200_000, description="Longer texts are rejected as too_long.")
    max_documents: PositiveInt = Field(
        default=2_000, description="Of a larger group, a fixed random sample of so many texts is read."
    )

    @model_validator(mode="after")
    def _one_way(self) -> SummarizeSettings:
        if self.max_sentences is not None and self.max_chars is not None:
            raise ValueError("expected either `max_sentences` or `max_chars`")
        chooses = [name for name in ("model", "max_sentences", "max_chars") if getattr(self, name) is not None]
        writes = [name for name in ("prompt", "max_new_tokens") if getattr(self, name) is not None]
        if self.generator and chooses:
            raise ValueError(
                f"expected either `generator`, which writes, or `{chooses[0]}`, for sentences that are chosen"
            )
        if not self.generator and writes:
            raise ValueError(f"`{writes[0]}` is for a `generator`, and there is none")
        if self.prompt is not None and self.prompt.count(PLACE) != 1:
            raise ValueError(f"expected a prompt with {PLACE} in it, once")
        return self

    def asked(self, text: str) -> str:
        """The prompt about that text."""
        if self.prompt is None:
            return _prompts.template(PROMPT).render(text=text)
        return self.prompt.replace(PLACE, unfenced(text))


@dataclass
class _Subject:
    """A row or a group on its way to a summary.

    sentences, spans: each sentence and where it stood, in order. meaning: (sentences, dim) where an encoder read them.
    tokens: of the encoder's tokenizer, or words and CJK characters where no model read the text.
    """

    position: int
    texts: list[str]
    sentences: list[str]
    spans: list[dict[str, int]]
    dialogue: bool
    tokens: int
    meaning: npt.NDArray[np.float32] | None = None

    @property
    def whole(self) -> str:
        """All texts as one, for a generator."""
        return "\n\n".join(text for text in self.texts if text and not text.isspace())

    @classmethod
    def of(cls, position: int, texts: list[str]) -> _Subject:
        """Split the texts: a dialogue by its turns, without the speakers' labels, all else by sentences."""
        found, spans, dialogue = [], [], False
        for document, text in enumerate(texts):
            spoken = sentences.turns(text)
            dialogue |= bool(spoken)
            for start, end in spoken or [(0, len(text))]:
                for begin, stop in sentences.split(text[start:end]):
                    found.append(text[start + begin : start + stop])
                    spans.append({"document": document, "start": start + begin, "end": start + stop})
        return cls(position, texts, found, spans, dialogue, sum(map(sentences.count_words, texts)))


class Summarize(Task):
    """Extractive summaries by centrality and marginal relevance (`bizllm.methods.extract`), or written ones, of long
    texts in parts (`bizllm.methods.map_reduce`)."""

    name = "summarize"
    version = 2
    Settings = SummarizeSettings
    summary = "The sentences that stand for a text, or for all texts of a group; or a summary that a model writes."
    takes = "A text in each row, or a list of texts; with `per` all texts of a group."
    example = "ticket_summary: {task: summarize, input: tickets, text: body, model: encoder, max_sentences: 3}"
    shapes = ("row", "group")  # group with `per`
    writes: ClassVar[dict[str, str]] = {
        "summary": "string: the chosen sentences, in the order of the text; or what the generator wrote",
        "spans": "list of {document, start, end}: where they stand, in characters; empty for a written one",
        "input_tokens": "int: length of the input, as the model counts; of a written one all that the generator read",
        "coverage": "float in [0, 1]: how near the text's sentences are to the summary",
        "output_tokens": "int: what the generator wrote, parts' summaries included; null for chosen sentences",
        "support": "float in [0, 1]: how near the summary's least supported sentence is to a sentence of the text",
        "unsupported": "list of string: numbers and names of the summary that the text does not have",
    }
    prompts = (PROMPT,)
    exhibits = "samples"

    settings: SummarizeSettings

    _encoder: Any = None
    _generator: Any = None

    @property
    def shape(self) -> Shape:
        return "group" if self.settings.per else "row"

    def group_by(self) -> list[str]:
        return list(self.settings.per)

    def reads(self) -> list[str]:
        return [*self.settings.per, self.settings.text]

    def check(self) -> list[tuple[str, object, str, str]]:
        faults: list[tuple[str, object, str, str]] = []
        known = self.source.schema.names
        for setting, column in [("text", self.settings.text), *(("per", name) for name in self.settings.per)]:
            if column not in known:
                faults.append(
                    (setting, column, f"no such column; there are {', '.join(known)}", nearest(column, known))
                )
        if not faults:
            kind = self.source.schema.field(self.settings.text).type
            if self.settings.per and not documents.is_text(kind):
                faults.append(("text", self.settings.text, f"expected a string column for `per`, it is {kind}", ""))
            elif not (documents.is_text(kind) or documents.is_texts(kind)):
                faults.append(("text", self.settings.text, f"expected string or list of string, it is {kind}", ""))
            if self.settings.text in self.settings.per or len(set(self.settings.per)) < len(self.settings.per):
                faults.append(("per", self.settings.per, "expected different columns, and not the text", ""))
        return faults

    def columns(self) -> pa.Schema:
        """spans are in the order of the summary: characters [start, end) of a source text. `document` tells which: 0,
        the item of a list column, or for groups the position among the group's usable texts in code point order.
        input_tokens: what the model's tokenizer counts; words, or CJK characters, where no model read the text.
        coverage: mean similarity of the text's sentences to the nearest one in the summary; by wording where written.
        support: by wording; 1 where the sentences are the text's own.
        """
        return pa.schema(
            [
                ("summary", pa.string()),
                ("spans", pa.list_(_SPAN)),
                ("input_tokens", pa.int32()),
                ("coverage", pa.float32()),
                ("output_tokens", pa.int32()),
                ("support", pa.float32()),
                ("unsupported", pa.list_(pa.string())),
            ]
        )

    def rules(self) -> dict[str, str]:
        return {
            "summary is not blank": "length(trim(summary)) > 0",
            "coverage lies in [0, 1]": "coverage BETWEEN 0 AND 1",
            "support lies in [0, 1]": "support BETWEEN 0 AND 1",
            "a summary comes from somewhere": "len(spans) > 0 OR output_tokens > 0",
        }

    def models(self) -> dict[str, str]:
        named = {"encoder": self.settings.model, "generator": self.settings.generator}
        return {role: uri for role, uri in named.items() if uri}

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> list[tuple[str, object, str, str]]:
        return _texts.generator_faults(self.settings.generator or "", infos.get("generator"))

    def depends_on_date(self) -> bool:
        return False

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        if self.settings.generator:
            read = int(text_bytes / _BYTES_PER_TOKEN) + rows * len(self.settings.asked("")) // 4
            written = self.written(rows)
            return read + written, read * _SECONDS_PER_READ + written * _SECONDS_PER_WRITTEN
        tokens = int(text_bytes / _BYTES_PER_TOKEN) if self.settings.model else 0
        return tokens, rows * 2e-4 + text_bytes * _SECONDS_PER_BYTE + tokens * _SECONDS_PER_TOKEN

    def written(self, rows: int) -> int:
        return rows * self._max_new_tokens // 2 if self.settings.generator else 0

    def open(self, models: Models) -> None:
        """Raises UserError where the generator's window has no room for the prompt and the summary."""
        self._encoder = models.encoder(self.settings.model) if self.settings.model else None
        if self.settings.generator:
            self._generator = models.generator(self.settings.generator)
            limit = self._generator.max_input_tokens(self._max_new_tokens)
            if self._generator.count([self.settings.asked("")])[0] >= limit:
                fault = f"the generator reads {limit} tokens beside a summary, which leaves none for the text"
                raise UserError(Fault("prompt", None, fault, "shorten the prompt or lower max_new_tokens"))

    def combine(self, rows: pa.Table) -> Combined:
        """Drop unusable texts, and keep a sample of at most `max_documents` texts of each group."""
        texts, unusable = documents.read(rows[self.settings.text], self.settings.max_input_chars)
        usable = np.array([i for i, text in enumerate(texts) if text is not None], np.int64)
        groups = documents.group_codes(rows.select(self.settings.per))[usable]
        kept = usable[documents.sample(groups, [text[0] for text in texts if text], self.settings.max_documents)]
        return Combined(rows.select(self.reads()).take(pa.array(kept)), [Reject(*fault) for fault in unusable])

    def answer(self, batch: pa.Table | Groups) -> Outcome:
        rows = batch.rows if isinstance(batch, Groups) else batch
        texts, unusable = documents.read(rows[self.settings.text], self.settings.max_input_chars)
        rejects = [Reject(*fault) for fault in unusable]
        if isinstance(batch, Groups):
            texts, rejects = _gather(texts, batch.starts.tolist(), self.settings.max_documents)
        subjects = [_Subject.of(position, text) for position, text in enumerate(texts) if text]
        made, tokens = self._write(subjects) if self.settings.generator else self._choose(subjects)
        answered = [(s, row) for s, row in zip(subjects, made, strict=True) if isinstance(row, dict)]
        rejects += [
            Reject(s.position, *why) for s, why in zip(subjects, made, strict=True) if not isinstance(why, dict)
        ]
        chosen = [row for _, row in answered]
        columns = pa.Table.from_pylist(chosen, schema=self.columns())
        positions = np.array([subject.position for subject, _ in answered], np.int64)
        return Outcome(positions, columns, rejects, tokens, _exhibit([subject for subject, _ in answered], chosen))

    @property
    def _max_new_tokens(self) -> int:
        return self.settings.max_new_tokens or MAX_NEW_TOKENS

    def _write(self, subjects: list[_Subject]) -> tuple[list[dict[str, Any] | Failure], int]:
        """(for each subject its row, or why there is none; tokens that were read and written)."""
        most = self._max_new_tokens
        written = map_reduce.summarize(
            [subject.whole for subject in subjects],
            self.settings.asked,
            self._generator.max_input_tokens(most),
            self._generator.count,
            lambda prompts: self._generator.generate(prompts, most),
        )
        made: list[dict[str, Any] | Failure] = []
        for subject, summary in zip(subjects, written, strict=True):
            if not summary.text:
                made.append(summary.failed or (_NO_END if summary.text is None else _NOTHING))
                continue
            told = [summary.text[start:end] for start, end in sentences.split(summary.text)]
            made.append(
                {
                    "summary": summary.text,
                    "spans": [],
                    "input_tokens": summary.input_tokens,
                    "coverage": extract.coverage(subject.sentences, told),
                    "output_tokens": summary.output_tokens,
                    "support": min(extract.support(subject.sentences, told)),
                    "unsupported": [
                        *(f"{number:f}" for number in claims.invented_numbers(summary.text, subject.texts)),
                        *claims.invented_names(summary.text, subject.texts),
                    ],
                }
            )
        return made, sum(summary.input_tokens + summary.output_tokens for summary in written)

    def _choose(self, subjects: list[_Subject]) -> tuple[list[dict[str, Any] | Failure], int]:
        """(a row for each subject; tokens that were read)."""
        tokens = self._read(subjects)
        return [self._summarize(subject) for subject in subjects], tokens

    def _budget(self) -> extract.Budget:
        if self.settings.max_chars is not None:
            return extract.Budget(chars=self.settings.max_chars)
        return extract.Budget(sentences=self.settings.max_sentences or 3)

    def _read(self, subjects: list[_Subject]) -> int:
        """Encode the sentences of every Latin-script subject that needs a choice, all at once; the tokens read."""
        budget = self._budget()
        todo = [s for s in subjects if self._encoder and not budget.holds(s.sentences) and sentences.is_latin(s.texts)]
        flat = [sentence for subject in todo for sentence in subject.sentences]
        if not flat:
            return 0
        vectors, counts = self._encoder.encode_counted(flat)
        start = 0
        for subject in todo:
            end = start + len(subject.sentences)
            subject.meaning, subject.tokens = vectors[start:end], int(counts[start:end].sum())
            start = end
        return int(counts.sum())

    def _summarize(self, subject: _Subject) -> dict[str, Any]:
        """One row of the output."""
        budget = self._budget()
        kept, coverage = list(range(len(subject.sentences))), 1.0
        if not budget.holds(subject.sentences):
            lead = len(subject.texts) == 1 and not subject.dialogue
            kept, coverage = extract.summarize(subject.sentences, budget, subject.meaning, lead)
        parts = [subject.sentences[i] for i in kept]
        spans = [subject.spans[i] for i in kept]
        if budget.chars is not None and len(parts) == 1 and len(parts[0]) > budget.chars:
            parts = [parts[0][: extract.cut(parts[0], budget.chars)]]
            spans = [{**spans[0], "end": spans[0]["start"] + len(parts[0])}]
        return {
            "summary": extract.join(parts),
            "spans": spans,
            "input_tokens": subject.tokens,
            "coverage": coverage,
            "output_tokens": None,
            "support": 1.0,
            "unsupported": [],
        }


def _gather(texts: list[list[str] | None], starts: list[int], most: int) -> tuple[list[list[str] | None], list[Reject]]:
    """The texts of each group, sampled and in code point order, so that the order of the rows decides nothing."""
    gathered: list[list[str] | None] = []
    for start, end in pairwise(starts):
        group = sorted(text[0] for text in texts[start:end] if text)
        kept = documents.sample(np.zeros(len(group), np.int64), group, most)
        gathered.append([group[i] for i in kept] or None)
    empty = [i for i, group in enumerate(gathered) if group is None]
    return gathered, [Reject(i, "empty", "the group has no usable text") for i in empty]


def _exhibit(subjects: list[_Subject], chosen: list[dict[str, Any]]) -> pa.Table:
    """A few subjects of all lengths, beginning with the longest."""
    order = sorted(range(len(subjects)), key=lambda i: -sum(map(len, subjects[i].texts)))
    picks = {order[int(k)] for k in np.linspace(0, len(order) - 1, min(_SAMPLES, len(order)))}
    rows = []
    for i in sorted(picks, key=order.index):
        subject, source = subjects[i], "\n\n".join(subjects[i].texts)
        kind = "dialogue" if subject.dialogue else f"{len(subject.texts)} texts" if len(subject.texts) > 1 else "text"
        title = f"{kind}, {len(subject.sentences)} sentences, {len(source)} characters"
        result = chosen[i]
        shown = source if len(source) <= _SAMPLE_CHARS else f"{source[: _SAMPLE_CHARS - 1]}…"
        rows.append({"title": title, "source": shown, "result": result["summary"], "score": result["coverage"]})
    return pa.Table.from_pylist(rows, schema=_EXHIBIT)


TASK = Summarize
