"""What the tasks share that answer from a table of passages: settings, what they learn, how they search and cite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types
from pydantic import Field, PositiveInt, model_validator

from bizllm.errors import Fault, UserError
from bizllm.methods import confidence, documents, retrieval
from bizllm.methods.retrieval import Hits, Index, Lexical
from bizllm.models.saved import ModelInfo
from bizllm.tasks import _knowledge, _passages, _texts
from bizllm.tasks._knowledge import Knowledge
from bizllm.tasks._passages import Passages, Reader
from bizllm.tasks._texts import Faults, Texts, TextSettings, TextTask
from bizllm.tasks.base import Learned, Models, Outcome, StepInput, TableRead

Floats = npt.NDArray[np.float32]
CANDIDATE = pa.struct([("passage_id", pa.string()), ("score", pa.float32())])
_EXHIBIT = pa.schema(
    [("title", pa.string()), ("source", pa.string()), ("result", pa.string()), ("score", pa.float64())]
)
_SAMPLES, _SAMPLE_CHARS = 8, 2_000
SECONDS_PER_SEARCH = 1e-3  # among some thousands of passages, one core, no encoder


class PassageTable(TableRead):
    """Passages to answer from."""

    text: str = Field(description="The column of passages: articles, paragraphs, the answers of a FAQ.")
    title: str | None = Field(
        default=None, description="The column of their titles, which count more; of a FAQ its questions."
    )
    id: str | None = Field(
        default=None, description="The column by which a passage is cited; by default a hash of its text."
    )
    answer: str | None = Field(
        default=None, description="The column that is given as the answer; by default the passage's best sentences."
    )


class Checked(TableRead):
    """Questions whose passage people know."""

    text: str = Field(description="The column of questions.")
    id: str = Field(description="The column of the right passage's id; null where no passage answers the question.")


class RetrieveSettings(TextSettings):
    """What every task takes that answers from passages."""

    text: str = Field(description="The column of questions.")
    passages: PassageTable = Field(description="The table of passages to answer from.")
    model: str | None = Field(
        default=None,
        description="A text encoder, read for Latin-script texts; without one, words and character n-grams decide.",
    )
    multilingual: bool = Field(
        default=False, description="The encoder reads every script, and is asked about all texts."
    )
    reranker: str | None = Field(
        default=None,
        description="A model fine-tuned for pairs of a question and a passage, which puts the candidates in order.",
    )
    relevant: str = Field(default="yes", description="The reranker's label of a pair that fits.")
    checked: Checked | None = Field(
        default=None,
        description=f"Questions with their right passages, {confidence.LEAST} at least, from which the confidence is "
        "learned; without them it goes by what held for other data.",
    )
    knowledge: Knowledge | None = Field(
        default=None,
        description="A table of a company's own words: a question and a passage that call one thing by different names "
        "find each other.",
    )
    candidates: PositiveInt = Field(default=5, description="How many passages are told, and put in order.")
    max_sentences: PositiveInt = Field(default=1, description="Length of an answer that is taken from a passage.")
    threshold: float = Field(
        default=0.5, ge=0.0, le=1.0, description="Under this confidence a row is for people: `escalate` is true."
    )

    @model_validator(mode="after")
    def _needed(self) -> RetrieveSettings:
        if self.multilingual and self.model is None:
            raise ValueError("`multilingual` is said of an encoder, and there is no `model`")
        if self.reranker is not None and self.checked is not None:
            raise ValueError("expected either `reranker`, whose probability is the confidence, or `checked`")
        return self


@dataclass(frozen=True)
class Found:
    """What a search says of each question.

    hits: of at least `candidates`. order: (questions, k) of the hits, best first; scores in that order. sure:
    (questions,) how probable it is that the first is right. vectors: (questions, dim), where there is an encoder.
    tokens: (questions,) that models read.
    """

    hits: Hits
    order: npt.NDArray[np.int64]
    scores: Floats
    sure: npt.NDArray[np.float64]
    vectors: Floats | None
    tokens: npt.NDArray[np.int64]


class RetrieveTask(TextTask):
    """Searches a table of passages by `bizllm.methods.retrieval`, and says how sure it is."""

    exhibits = "samples"
    settings: RetrieveSettings

    _encoder: Any = None
    _reranker: Any = None
    _passages: Passages | None = None

    shared_writes: ClassVar[dict[str, str]] = {
        "answer": "string: the passage's best sentences, or its answer column; null where nothing was found",
        "passage_id": "string: the passage that it cites; null where nothing was found",
        "passage": "string: its text",
        "score": "float in [0, 1]: how much of the question the passage has; of a reranker its probability",
        "confidence": "float in [0, 1]: how probable it is that the passage answers the question",
        "escalate": "boolean: for people, since the confidence is under the threshold",
        "candidates": "list of {passage_id, score}: the best passages, the cited one first",
        "input_tokens": "int: length of the question, as the encoder counts, or in words",
    }

    def check(self) -> Faults:
        faults = super().check()
        known, given = self.settings.passages, self.others["passages"]
        texts = {name: column for name, column in known.columns().items() if name != "id"}
        faults += strings(given, "passages", texts) + ids(given, "passages.id", known.id)
        if self.settings.knowledge is not None:
            faults += _knowledge.faults("knowledge", self.settings.knowledge, self.others["knowledge"])
        if (checked := self.settings.checked) is not None:
            given = self.others["checked"]
            faults += strings(given, "checked", {"text": checked.text}) + ids(given, "checked.id", checked.id)
            if known.id is None:
                faults.append(("checked.id", checked.id, "the passages have no ids; name `passages.id`", ""))
        return faults

    def columns(self) -> pa.Schema:
        kinds = {"score": pa.float32(), "confidence": pa.float32(), "escalate": pa.bool_(), "input_tokens": pa.int32()}
        kinds |= {"candidates": pa.list_(CANDIDATE)}
        return pa.schema([(name, kinds.get(name, pa.string())) for name in self.writes])

    def rules(self) -> dict[str, str]:
        return {
            "an answer cites its passage": "(answer is null) = (passage_id is null)",
            "the confidence lies in [0, 1]": "confidence between 0 and 1",
            "the cited passage is the best candidate": "len(candidates) = 0 or (candidates[1].passage_id = passage_id "
            "and candidates[1].score = score and candidates[-1].score <= score)",
            "what has no answer is for people": "answer is not null or escalate",
        }

    def models(self) -> dict[str, str]:
        given = {"encoder": self.settings.model, "reranker": self.settings.reranker}
        return {name: uri for name, uri in given.items() if uri is not None}

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> Faults:
        s = self.settings
        faults = _texts.encoder_faults(self.name, s.model, infos.get("encoder"))
        if s.reranker is None:
            return faults
        info = infos.get("reranker")
        found = _texts.objective_faults(self.name, s.reranker, info, ("pair",))
        faults += [("reranker", value, expected, "") for _, value, expected, _ in found]
        if info is not None and not found and s.relevant not in info.labels:
            faults.append(("relevant", s.relevant, f"the reranker's labels are {', '.join(info.labels)}", ""))
        return faults

    def caveat(self) -> str:
        if self.settings.model is None:
            return (
                "Without an encoder the cited passage is the right one for 34 % of English medical questions "
                "(62 % with one, of a smaller table) and for 97 % of Chinese ones on articles."
            )
        return "Of English medical questions 62 % cite the right passage first; of what is not escalated 77 % is right."

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        return super().estimate(rows, text_bytes) if self.settings.model else (0, rows * SECONDS_PER_SEARCH)

    def open(self, models: Models) -> None:
        s = self.settings
        self._encoder = models.encoder(s.model) if s.model is not None else None
        self._reranker = models.classifier(s.reranker) if s.reranker is not None else None
        if self.learned is not None:
            self._passages = self._opened(self.learned)

    # -- learning -----------------------------------------------------------------------------------------------------

    def learn(self, tables: Mapping[str, pa.Table], previous: Learned | None = None) -> Learned:
        s = self.settings
        columns = s.passages.columns()
        names = [*dict.fromkeys(["id", "title", "text", "answer", *columns])]
        needed = [name for name in columns if name != "title"]
        rows, stands_for = _passages.read(tables["passages"], columns, names, needed, s.max_input_chars)
        if not rows.num_rows:
            found = f"none of its {tables['passages'].num_rows:,} rows has a text"
            raise UserError(Fault("passages", s.passages.input, f"{found}; expected passages to answer from"))
        reader = Reader(self._encoder, s.multilingual, _passages.vectors_of(previous))
        texts, titles = rows["text"].to_pylist(), rows["title"].to_pylist()
        wanted = [part for passage in zip(texts, titles, strict=True) for part in _passages.parts(reader, *passage)]
        known = _knowledge.learn(tables["knowledge"], s.knowledge) if s.knowledge is not None else {}
        indexed = Lexical.build(_knowledge.plainly(texts, _knowledge.terms(known)), titles)
        state = indexed.state() | known | {"passages": rows, "weights": None} | reader.kept(wanted)
        if s.checked is not None:
            state["weights"] = self._weights(self._opened(state), tables["checked"], s.checked, stands_for)
        return state

    def _weights(
        self, passages: Passages, rows: pa.Table, checked: Checked, stands_for: Mapping[str, str]
    ) -> list[float] | None:
        """What questions whose passage is known tell of the confidence. Raises UserError where they are too few.

        stands_for: the id of the passage that was kept, by that of its equals.
        """
        given = _texts.read(rows, [checked.text], self.settings.max_input_chars)
        questions = given.columns[0]
        right = rows[checked.id].cast(pa.string()).take(pa.array(given.positions)).to_pylist()
        found = self._find(passages, questions)
        first = [passages.ids[i] if i != retrieval.NONE else None for i in found.hits.ids[:, 0]]
        hit = np.array([a is not None and a == stands_for.get(b) for a, b in zip(first, right, strict=True)], bool)
        weights = confidence.fit(confidence.signs(found.hits), hit)
        if weights is None:
            told = f"{len(hit):,} usable questions, {int(hit.sum()):,} of which find their passage"
            expected = f"expected {confidence.LEAST} at least, some of which find it and some of which don't"
            raise UserError(Fault("checked", checked.input, f"{told}; {expected}", "leave `checked` out"))
        return weights

    def _opened(self, state: Learned) -> Passages:
        rows, meaning = state["passages"], None
        if "keys" in state:
            reader = Reader(self._encoder, self.settings.multilingual)
            meaning = _passages.meaning(rows, reader, _passages.vectors_of(state))
        return Passages(rows, Index(Lexical.of(state), meaning), state["weights"], _knowledge.terms(state))

    # -- answering ----------------------------------------------------------------------------------------------------

    def _find(self, passages: Passages, questions: Sequence[str]) -> Found:
        s, questions = self.settings, _knowledge.plainly(questions, passages.names)
        vectors, tokens = Reader(self._encoder, s.multilingual).questions(questions)
        # A second hit is a sign of confidence, asked for or not.
        hits = passages.index.search(questions, vectors, max(2, s.candidates))
        order = np.tile(np.arange(hits.ids.shape[1]), (len(questions), 1))
        scores, sure = hits.scores, confidence.of(hits, passages.weights)
        if self._reranker is not None:
            pairs = np.argwhere(hits.ids != retrieval.NONE)
            asked = [questions[row] for row, _ in pairs]
            titles = passages.rows["title"].to_pylist()
            told = [f"{titles[i]}\n{passages.texts[i]}".strip() for i in hits.ids[tuple(pairs.T)]]
            likely, read = self._reranker.probabilities(asked, told)
            scores = np.full(hits.ids.shape, -1, np.float32)
            scores[tuple(pairs.T)] = likely[:, self._reranker.info.labels.index(s.relevant)]
            order = np.argsort(-scores, axis=1, kind="stable")
            scores = np.take_along_axis(scores, order, axis=1)
            sure = np.where(hits.ids[:, 0] == retrieval.NONE, 0.0, scores[:, 0])
            np.add.at(tokens, pairs[:, 0], read)
        return Found(hits, order, scores, sure, vectors, tokens)

    def answer(self, batch: pa.Table) -> Outcome:
        assert self._passages is not None, "opened before the first batch"
        given = _texts.read(batch, [self.settings.text], self.settings.max_input_chars)
        questions = given.columns[0]
        found = self._find(self._passages, questions)
        rows = [self._row(self._passages, found, i, question) for i, question in enumerate(questions)]
        columns = pa.Table.from_pylist(rows, schema=self.columns())
        return Outcome(given.positions, columns, given.rejects, int(found.tokens.sum()), exhibit(given, rows, "answer"))

    def _row(self, passages: Passages, found: Found, at: int, question: str) -> dict[str, Any]:
        """One row of the output."""
        s = self.settings
        ids = found.hits.ids[at][found.order[at]]
        scores = {int(i): float(score) for i, score in zip(ids, found.scores[at], strict=True) if i != retrieval.NONE}
        sure = float(found.sure[at])
        row: dict[str, Any] = dict.fromkeys(self.writes)
        row |= {"score": 0.0, "confidence": sure, "escalate": sure < s.threshold or not scores, "candidates": []}
        row |= {"input_tokens": int(found.tokens[at])}
        if scores:
            first = next(iter(scores))
            told: dict[str, float] = {}
            for i, score in scores.items():
                told.setdefault(passages.ids[i], score)
            cited = passages.rows.slice(first, 1).to_pylist()[0]
            row |= {name: cited[name] for name in self.writes if name in cited}
            vector = found.vectors[at] if found.vectors is not None else None
            answer = cited["answer"] or passages.best_sentences(first, question, vector, s.max_sentences)
            row |= {"answer": answer, "passage_id": cited["id"]}
            row |= {"passage": cited["text"], "score": scores[first]}
            best = [{"passage_id": name, "score": score} for name, score in told.items()]
            row["candidates"] = best[: s.candidates]
        return row


def exhibit(given: Texts, rows: Sequence[Mapping[str, Any]], column: str) -> pa.Table:
    """A few questions, from the least sure to the surest."""
    order = sorted(range(len(rows)), key=lambda i: rows[i]["confidence"])
    picks = dict.fromkeys(order[int(k)] for k in np.linspace(0, len(order) - 1, min(_SAMPLES, len(order))))
    told = [
        {
            "title": "for people" if rows[i]["escalate"] else "answered",
            "source": given.columns[0][i][:_SAMPLE_CHARS],
            "result": (rows[i][column] or "")[:_SAMPLE_CHARS],
            "score": rows[i]["confidence"],
        }
        for i in picks
    ]
    return pa.Table.from_pylist(told, schema=_EXHIBIT)


def strings(given: StepInput, setting: str, columns: Mapping[str, str | None]) -> Faults:
    """Faults of settings that name string columns of a further table; that they are there is checked elsewhere."""
    kinds: dict[str, Any] = {field.name: field.type for field in given.schema}
    return [
        (f"{setting}.{name}", column, f"expected a string column, it is {kinds[column]}", "")
        for name, column in columns.items()
        if column in kinds and not documents.is_text(kinds[column])
    ]


def ids(given: StepInput, setting: str, column: str | None) -> Faults:
    """The fault of a column that can't identify a row."""
    kinds: dict[str, Any] = {field.name: field.type for field in given.schema}
    if column not in kinds or documents.is_text(kinds[column]) or types.is_integer(kinds[column]):
        return []
    return [(setting, column, f"expected a column of string or integer, it is {kinds[column]}", "")]
