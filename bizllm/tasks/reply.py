"""A reply for each message, out of those that people gave to messages like it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types
from pydantic import Field, NonNegativeInt, model_validator

from bizllm.errors import Fault, UserError
from bizllm.methods import confidence, retrieval, typical
from bizllm.methods.retrieval import Hits, Index, Lexical, Meaning
from bizllm.methods.typical import Likeness
from bizllm.models.saved import ModelInfo
from bizllm.tasks import _passages, _retrieve, _texts
from bizllm.tasks._passages import Reader
from bizllm.tasks._texts import Faults, TextSettings, TextTask
from bizllm.tasks.base import Learned, Models, Outcome, TableRead

NEIGHBOURS = 50  # past messages whose replies are compared
_TRIALS = 400  # past messages that are answered once more, without their own conversation
_ALIKE = 0.35  # likeness to what was said in truth, from which a suggestion said much the same
# Offset and weights of agreement and nearness, where too few past messages tell; see docs/tasks/reply.md.
_UNTRIED = (-3.0, 4.0, 1.0)
_TOLD = ("id", "message", "reply", "history", "conversation")
_OTHER = pa.struct([("source_id", pa.string()), ("reply", pa.string())])


class Past(TableRead):
    """Messages with the replies that people gave."""

    message: str = Field(description="The column of messages.")
    reply: str = Field(description="The column of replies.")
    id: str | None = Field(
        default=None, description="The column by which an exchange is told; by default a hash of its texts."
    )
    history: str | None = Field(default=None, description="The column of what was said before the message.")
    conversation: str | None = Field(default=None, description="The column of its conversation's id.")
    rating: str | None = Field(default=None, description="The column of what the reply was worth: a number.")
    when: str | None = Field(
        default=None, description="The column of the reply's day; those after the run date are left out."
    )


class ReplySettings(TextSettings):
    """What `task: reply` takes."""

    text: str = Field(description="The column of messages.")
    past: Past = Field(description="The table of past messages and their replies.")
    history: str | None = Field(
        default=None, description="The column of what was said before the message, as `past.history`; counts less."
    )
    conversation: str | None = Field(
        default=None, description="The column of its conversation's id: a reply of the same conversation is never told."
    )
    model: str | None = Field(
        default=None,
        description="A text encoder, read for Latin-script texts; without one, words and character n-grams decide.",
    )
    multilingual: bool = Field(
        default=False, description="The encoder reads every script, and is asked about all texts."
    )
    min_rating: float | None = Field(default=None, description="Replies of a lower rating, or of none, are left out.")
    alternatives: NonNegativeInt = Field(default=2, description="The most other replies that are told.")
    threshold: float = Field(
        default=0.5, ge=0.0, le=1.0, description="Under this confidence a row is for people: `escalate` is true."
    )

    @model_validator(mode="after")
    def _in_pairs(self) -> ReplySettings:
        for name in ("history", "conversation"):
            if (getattr(self, name) is None) != (getattr(self.past, name) is None):
                raise ValueError(f"expected `{name}` and `past.{name}` together")
        if (self.min_rating is None) != (self.past.rating is None):
            raise ValueError("expected `min_rating` and `past.rating` together")
        if self.multilingual and self.model is None:
            raise ValueError("`multilingual` is said of an encoder, and there is no `model`")
        return self


@dataclass(frozen=True)
class Desk:
    """What was learned of the past, ready to be searched.

    rows: id, message, reply, history, conversation. replies: how alike they are. weights: of the confidence, where it
    was learned.
    """

    rows: list[dict[str, str]]
    index: Index
    replies: Likeness
    weights: list[float] | None

    def numbered(self, conversations: Sequence[str | None]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Numbers of these conversations and of those of the past: equal where they are the same."""
        past = np.array([self._numbers.get(row["conversation"], -1) for row in self.rows], np.int64)
        return np.array([self._numbers.get(name or "", -2) for name in conversations], np.int64), past

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {row["conversation"]: i for i, row in enumerate(self.rows) if row["conversation"]}

    def suggested(self, hits: Hits, at: int) -> tuple[list[int], float, float]:
        """(exchanges, the most typical reply's first, then others by their typicality; its agreement; the nearness of
        the nearest message)."""
        ids = hits.ids[at][hits.ids[at] != retrieval.NONE]
        if not len(ids):
            return [], 0.0, 0.0
        scores = hits.scores[at, : len(ids)]
        agreed = self.replies.agreement(ids, typical.weights_of(scores))
        order = np.argsort(-agreed, kind="stable")
        return ids[order].tolist(), float(agreed[order[0]]), float(scores[0])


class Reply(TextTask):
    """The medoid of the replies to the nearest past messages (`bizllm.methods.typical`)."""

    name = "reply"
    version = 1
    Settings = ReplySettings
    summary = "A suggested reply to each message: the most typical of those that people gave to messages like it."
    takes = "A message in each row, and, in a table of its own, past messages with good replies."
    example = (
        "ticket_reply: {task: reply, input: tickets, text: body, model: encoder, past: {input: exchanges, "
        "message: message, reply: reply}}"
    )
    writes: ClassVar[dict[str, str]] = {
        "reply": "string: the suggestion, as it was once written; null where no past message is like this one",
        "source_id": "string: the exchange that it is from",
        "source_message": "string: the message that it answered then",
        "score": "float in [0, 1]: how near the nearest past message is",
        "agreement": "float in [0, 1]: how alike the replies to the nearest messages are to it",
        "confidence": "float in [0, 1]: how probable it is that people would reply much the same",
        "escalate": "boolean: for people, since the confidence is under the threshold",
        "alternatives": "list of {source_id, reply}: other replies, at most `alternatives`",
        "input_tokens": "int: length of the message, as the encoder counts, or in words",
    }
    exhibits = "samples"
    settings: ReplySettings

    _encoder: Any = None
    _desk: Desk | None = None

    def reads(self) -> list[str]:
        s = self.settings
        return [column for column in (s.text, s.history, s.conversation) if column is not None]

    def check(self) -> Faults:
        s, given = self.settings, self.others["past"]
        texts = {"text": s.text} | ({"history": s.history} if s.history else {})
        faults = _texts.column_faults(self.source.schema, texts)
        if s.conversation is not None and s.conversation not in self.source.schema.names:
            faults += _texts.column_faults(self.source.schema, {"conversation": s.conversation})
        faults += _retrieve.strings(given, "past", {n: getattr(s.past, n) for n in ("message", "reply", "history")})
        faults += _retrieve.ids(given, "past.id", s.past.id)
        faults += _retrieve.ids(given, "past.conversation", s.past.conversation)
        faults += _retrieve.ids(self.source, "conversation", s.conversation)
        kinds: dict[str | None, Any] = {field.name: field.type for field in given.schema}
        rating, when = kinds.get(s.past.rating, pa.float64()), kinds.get(s.past.when, pa.date32())
        if not (types.is_integer(rating) or types.is_floating(rating) or types.is_decimal(rating)):
            faults.append(("past.rating", s.past.rating, f"expected a column of numbers, it is {rating}", ""))
        if not (types.is_date(when) or types.is_timestamp(when)):
            faults.append(("past.when", s.past.when, f"expected a column of dates or timestamps, it is {when}", ""))
        return faults

    def columns(self) -> pa.Schema:
        kinds = dict.fromkeys(("score", "agreement", "confidence"), pa.float32())
        kinds |= {"escalate": pa.bool_(), "alternatives": pa.list_(_OTHER), "input_tokens": pa.int32()}
        return pa.schema([(name, kinds.get(name, pa.string())) for name in self.writes])

    def rules(self) -> dict[str, str]:
        return {
            "a reply tells where it is from": "(reply is null) = (source_id is null)",
            "the confidence lies in [0, 1]": "confidence between 0 and 1",
            "no other reply is the same": "reply is null or not list_contains([a.reply for a in alternatives], reply)",
            "what has no reply is for people": "reply is not null or escalate",
        }

    def models(self) -> dict[str, str]:
        return {"encoder": self.settings.model} if self.settings.model is not None else {}

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> Faults:
        return _texts.encoder_faults(self.name, self.settings.model, infos.get("encoder"))

    def caveat(self) -> str:
        return (
            "In Chinese travel dialogues suggestions share 0.43 of their characters (F1) with what people "
            "said, 0.78 where they are not escalated."
        )

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        return super().estimate(rows, text_bytes) if self.settings.model else (0, rows * _retrieve.SECONDS_PER_SEARCH)

    def open(self, models: Models) -> None:
        s = self.settings
        self._encoder = models.encoder(s.model) if s.model is not None else None
        if self.learned is not None:
            self._desk = self._opened(self.learned)

    # -- learning -----------------------------------------------------------------------------------------------------

    def learn(self, tables: Mapping[str, pa.Table], previous: Learned | None = None) -> Learned:
        s, past = self.settings, self.settings.past
        used = self._usable(tables["past"])
        columns = {name: column for name, column in past.columns().items() if name in _TOLD}
        needed = [name for name in ("message", "reply", "id") if name in columns]
        rows, _ = _passages.read(used, columns, _TOLD, needed, s.max_input_chars)
        if not rows.num_rows:
            found = f"of its {tables['past'].num_rows:,} rows {used.num_rows:,} may be used, and none has both texts"
            raise UserError(Fault("past", past.input, f"{found}; expected past messages with replies"))
        messages, history = rows["message"].to_pylist(), rows["history"].to_pylist()
        reader = Reader(self._encoder, s.multilingual, _passages.vectors_of(previous))
        index = Index(Lexical.build(messages), context=Lexical.build(history) if s.history else None)
        state = index.state() | {"past": rows, "weights": None}
        state |= reader.kept([text for text in [*messages, *rows["reply"].to_pylist()] if reader.reads(text)])
        return state | {"weights": self._weights(self._opened(state))}

    def _usable(self, rows: pa.Table) -> pa.Table:
        """Those with a good rating, up to the run date."""
        s, past = self.settings, self.settings.past
        if past.rating is not None:
            rated = rows[past.rating].cast(pa.float64())
            rows = rows.filter(pc.fill_null(pc.greater_equal(rated, s.min_rating), False))
        if past.when is not None:
            day = rows[past.when].cast(pa.date32(), safe=False)
            rows = rows.filter(pc.fill_null(pc.less_equal(day, pa.scalar(self.run_date, pa.date32())), False))
        return rows

    def _opened(self, state: Learned) -> Desk:
        rows, meaning, replies = state["past"].to_pylist(), None, None
        if "keys" in state:
            known = _passages.vectors_of(state)
            nothing = np.zeros(state["vectors"].shape[1], np.float32)
            messages, replies = (
                np.stack([known.get(_passages.text_key(row[name]), nothing) for row in rows]).astype(np.float32)
                for name in ("message", "reply")
            )
            meaning = Meaning.build(messages)
        index = Index.of({name: value for name, value in state.items() if name != "vectors"})
        alike = Likeness.build([row["reply"] for row in rows], replies)
        return Desk(rows, replace(index, meaning=meaning), alike, state["weights"])

    def _weights(self, desk: Desk) -> list[float] | None:
        """What past messages tell of the confidence, each answered without its own conversation."""
        picks = np.unique(np.linspace(0, len(desk.rows) - 1, min(_TRIALS, len(desk.rows))).astype(np.int64))
        some = [desk.rows[i] for i in picks]
        _, past = desk.numbered([])
        alone = np.where(past < 0, len(past) + np.arange(len(past)), past)
        hits, _ = self._search(desk, [r["message"] for r in some], [r["history"] for r in some], (alone[picks], alone))
        signs, right = [], []
        for at, own in enumerate(picks):
            ids, agreed, near = desk.suggested(hits, at)
            if ids:
                signs.append([agreed, near])
                right.append(desk.replies.between(np.array([own]), np.array(ids[:1]))[0, 0] >= _ALIKE)
        return confidence.fit(np.array(signs), np.array(right, bool)) if signs else None

    # -- answering ----------------------------------------------------------------------------------------------------

    def _search(
        self, desk: Desk, messages: Sequence[str], history: Sequence[str], apart: tuple[Any, Any]
    ) -> tuple[Hits, npt.NDArray[np.int64]]:
        """(hits, tokens of each message)."""
        vectors, tokens = Reader(self._encoder, self.settings.multilingual).questions(messages)
        return desk.index.search(messages, vectors, NEIGHBOURS, apart, history), tokens

    def answer(self, batch: pa.Table) -> Outcome:
        s, desk = self.settings, self._desk
        assert desk is not None, "opened before the first batch"
        given = _texts.read(batch, [s.text], s.max_input_chars)
        rows = batch.take(pa.array(given.positions))
        history = _passages.texts(rows[s.history], s.max_input_chars) if s.history else [None] * len(rows)
        talks = rows[s.conversation].cast(pa.string()).to_pylist() if s.conversation else [None] * len(rows)
        messages = given.columns[0]
        hits, tokens = self._search(desk, messages, [before or "" for before in history], desk.numbered(talks))
        made = [self._row(desk, hits, at, int(tokens[at])) for at in range(len(messages))]
        columns = pa.Table.from_pylist(made, schema=self.columns())
        shown = _retrieve.exhibit(given, made, "reply")
        return Outcome(given.positions, columns, given.rejects, int(tokens.sum()), shown)

    def _row(self, desk: Desk, hits: Hits, at: int, tokens: int) -> dict[str, Any]:
        """One row of the output."""
        ids, agreed, near = desk.suggested(hits, at)
        row: dict[str, Any] = dict.fromkeys(self.writes)
        row |= {"score": near, "agreement": agreed, "confidence": 0.0, "escalate": True, "alternatives": []}
        row |= {"input_tokens": tokens}
        if ids:
            sure = confidence.logistic(np.array([[agreed, near]]), desk.weights or _UNTRIED)[0]
            different: dict[str, dict[str, str]] = {}
            for i in ids:
                different.setdefault(desk.rows[i]["reply"], desk.rows[i])
            first, *others = different.values()
            told = [{"source_id": other["id"], "reply": other["reply"]} for other in others]
            row |= {"reply": first["reply"], "source_id": first["id"], "source_message": first["message"]}
            row |= {"confidence": float(sure), "escalate": bool(sure < self.settings.threshold)}
            row |= {"alternatives": told[: self.settings.alternatives]}
        return row


TASK = Reply
