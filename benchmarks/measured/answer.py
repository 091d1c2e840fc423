"""answer: does it find the passage, does it tell the answer, and does it know when it does not.

`BM25` is the library bm25s on title and text: of English words with and without its stop words, of Chinese single
characters, pairs, and both; the best of these on the very questions counts. `vectors` are the encoder's of title and
text.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import bench
import bm25s
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bizllm.evaluate import calibration
from bizllm.methods.search_terms import terms
from bizllm.models.load import ModelLoader
from bizllm.tasks.answer import Answer, AnswerSettings
from bizllm.tasks.base import StepInput
from measured import Line

ENCODER = "builtin:minilm"
MODELS = ModelLoader()
LEARNED: dict[str, Any] = {}  # of each data set, so that a sentence is read once
DEPTH = 10  # of the ranks: an MRR counts nothing below
REMARKS = """How terms are made, what title, sentences and vectors have to say, and the weights of the confidence
were chosen on policyqa's dev part, cmrc2018's trial part (with the abstracts of csl_title_zh as further
passages) and a sixteenth of medquad, none of whose illnesses is in the 24th that is measured; the full
collection holds it, too. After a first look at all figures here two things were chosen anew, on those same
parts: BM25's constants, and that words of other scripts in Chinese texts are cut into characters. MRR counts
the first ten. Of policyqa one site at a time is what a company asks of its own policies; the same questions are
asked of every site, so that among all sites nobody can tell which is meant. Of medquad the full collection is
measured without an encoder, which would read it for half an hour on one core."""
Ranks = npt.NDArray[np.int64]  # (questions,) of the right passage, DEPTH + 1 where it is not among the first


@dataclass(frozen=True)
class Asked:
    """Passages, questions, and which passage (`right`) answers each; answers: spans that people marked."""

    name: str
    titles: list[str]
    texts: list[str]
    questions: list[str]
    right: npt.NDArray[np.int64]
    answers: list[list[str]]

    def of(self, passages: Sequence[int], questions: Sequence[int] | None = None) -> Asked:
        """Some of the passages, and the questions about them, or these questions; -1 is right where no passage is."""
        place = np.full(len(self.texts), -1)
        place[passages] = np.arange(len(passages))
        kept = [i for i, at in enumerate(self.right) if place[at] >= 0] if questions is None else [*questions]
        return Asked(
            self.name,
            [self.titles[i] for i in passages],
            [self.texts[i] for i in passages],
            [self.questions[i] for i in kept],
            place[self.right[kept]],
            [self.answers[i] for i in kept],
        )


def share(key: str, parts: int) -> int:
    """A part of the data by a hash."""
    return int(hashlib.md5(key.encode()).hexdigest(), 16) % parts


def squad(data: Path, name: str, part: str) -> Asked:
    """Passages with questions and marked spans."""
    passages = pq.read_table(data / name / f"{part}_passages.parquet").to_pylist()
    rows = pq.read_table(data / name / f"{part}_questions.parquet").to_pylist()
    rows = [row for row in rows if row["question"].strip()]
    place = {row["passage_id"]: i for i, row in enumerate(passages)}
    return Asked(
        f"{name} {part}",
        [row["title"] for row in passages],
        [row["passage"] for row in passages],
        [row["question"] for row in rows],
        np.array([place[row["passage_id"]] for row in rows]),
        [row["answers"] for row in rows],
    )


def medquad(data: Path, kept: Callable[[str], bool]) -> Asked:
    """Questions whose passage is their answer, under the illness as its title."""
    rows = [row for row in pq.read_table(data / "medquad/qa.parquet").to_pylist() if row["answer"]]
    rows = [row for row in rows if kept((row["doc_id"] or row["focus"] or "") + row["source"])]
    answers = [row["answer"] for row in rows]
    titles = [row["focus"] or "" for row in rows]
    return Asked(
        "medquad", titles, answers, [r["question"] for r in rows], np.arange(len(rows)), [[a] for a in answers]
    )


# -- what is compared ---------------------------------------------------------------------------------------------


def answered(asked: Asked, checked: Asked | None = None, **said: Any) -> list[dict[str, Any]]:
    """The rows of `answer`. checked: questions of the same passages whose right passage it is told."""
    ids = [f"{i:06d}" for i in range(len(asked.texts))]
    knowledge = pa.table({"id": ids, "title": asked.titles, "text": asked.texts})
    columns = {"input": "passages", "id": "id", "title": "title", "text": "text"}
    settings = {"task": "answer", "input": "asked", "text": "text", "passages": columns, "candidates": DEPTH, **said}
    tables = {"passages": knowledge}
    if checked is not None:
        known = [ids[at] if at >= 0 else None for at in checked.right]
        tables["checked"] = pa.table({"text": checked.questions, "id": pa.array(known, pa.string())})
        settings["checked"] = {"input": "known", "text": "text", "id": "id"}
    made = AnswerSettings(**settings)
    others = {name: StepInput(name, table.schema) for name, table in tables.items()}
    step = StepInput("asked", pa.schema([("text", pa.string())]))
    task = Answer(made, step, date(2026, 1, 1), others)
    task.open(MODELS)
    learned = task.learn(tables, LEARNED.get(asked.name))
    LEARNED.setdefault(asked.name, learned)
    task = Answer(made, step, date(2026, 1, 1), others, learned=learned)
    task.open(MODELS)
    outcome = task.answer(pa.table({"text": asked.questions}))
    assert not outcome.rejects
    return list(outcome.columns.to_pylist())


def ranks_of(rows: Sequence[dict[str, Any]], asked: Asked) -> Ranks:
    """Where the right passage stands among the candidates; of equal passages the one that is told counts."""
    first: dict[tuple[str, str], int] = {}
    same = [first.setdefault(both, i) for i, both in enumerate(zip(asked.titles, asked.texts, strict=True))]
    found = []
    for row, right in zip(rows, asked.right, strict=True):
        places = [same[int(candidate["passage_id"])] for candidate in row["candidates"]]
        found.append(places.index(same[right]) + 1 if same[right] in places else DEPTH + 1)
    return np.array(found)


def ranks(scores: npt.NDArray[Any], asked: Asked) -> Ranks:
    """Of each question's right passage; equal passages and scores count for it."""
    own = scores[np.arange(len(scores)), asked.right]
    return np.asarray(np.minimum((scores > own[:, None]).sum(axis=1) + 1, DEPTH + 1))


def bm25(asked: Asked) -> dict[str, Ranks]:
    """The library alone, on each way to cut texts into terms that suits the language."""
    texts = [f"{title}\n{text}" for title, text in zip(asked.titles, asked.texts, strict=True)]
    ways: dict[str, Callable[[Sequence[str]], list[list[str]]]] = {}
    if asked.name.startswith("cmrc"):
        for name, sizes in (("characters", (1,)), ("pairs", (2,)), ("characters and pairs", (1, 2))):
            ways[f"BM25 of {name}"] = lambda some, sizes=sizes: [_grams(text, sizes) for text in some]
    else:
        for name, stop in (("BM25", None), ("BM25 without stop words", "en")):
            ways[name] = lambda some, stop=stop: bm25s.tokenize(
                list(some), stopwords=stop, return_ids=False, show_progress=False
            )
    found = {}
    for name, cut in ways.items():
        index = bm25s.BM25()
        index.index(cut(texts), show_progress=False)
        asks = cut(asked.questions)
        scores = [index.get_scores(words) if words else np.zeros(len(texts), np.float32) for words in asks]
        found[name] = ranks(np.stack(scores), asked)
    return found


def vectors(asked: Asked) -> Ranks:
    """The encoder alone."""
    encoder = MODELS.encoder(ENCODER)
    texts = [f"{title}\n{text}" for title, text in zip(asked.titles, asked.texts, strict=True)]
    return ranks(encoder.encode(asked.questions)[0] @ encoder.encode(texts)[0].T, asked)


def token_f1(said: str | None, right: Sequence[str]) -> float:
    """Words, or CJK characters, shared with the nearest of the right answers."""

    def counted(text: str) -> Counter[str]:
        return Counter(term for term in terms(text) if len(term) == 1 or term.isascii())

    own, scores = counted(said or ""), []
    for answer in right:
        other = counted(answer)
        scores.append(2 * sum((own & other).values()) / max(1, sum(own.values()) + sum(other.values())))
    return max(scores)


# -- lines ----------------------------------------------------------------------------------------------------------

_METRICS: dict[str, Callable[[Ranks], float]] = {
    "recall@5": lambda rank: float((rank <= 5).mean()),
    "recall@1": lambda rank: float((rank <= 1).mean()),
    "MRR": lambda rank: float(np.where(rank <= DEPTH, 1 / rank, 0).mean()),
}


def compared(name: str, ours: Ranks, others: dict[str, Ranks], task: str = "answer") -> list[Line]:
    """A line for each metric, beside the best of the others; the note tells them all."""
    made = []
    for metric, of in _METRICS.items():
        scores = {way: of(rank) for way, rank in others.items()}
        best = max(scores, key=scores.__getitem__)
        note = "; ".join(f"{way} {score:.3f}" for way, score in scores.items()) + f"; {len(ours):,} questions"
        made.append(Line(task, name, metric, of(ours), scores[best], best, note=note))
    print(made[0], flush=True)
    return made


def quality(name: str, rows: Sequence[dict[str, Any]], asked: Asked) -> Line:
    """The told sentence beside the whole passage."""
    ours, whole = (
        float(np.mean([token_f1(row[column], right) for row, right in zip(rows, asked.answers, strict=True)]))
        for column in ("answer", "passage")
    )
    return Line("answer", name, "token F1 of the answer", ours, whole, "whole passage")


def escalation(name: str, asked: Asked, **said: Any) -> list[Line]:
    """What it answers and what it leaves to people, where a third of the passages is taken away."""
    left = [i for i in range(len(asked.texts)) if share(f"{i}", 3)]
    fewer = asked.of(left, range(len(asked.questions)))
    odd = [i for i in range(len(fewer.questions)) if share(fewer.questions[i], 2)]
    even = [i for i in range(len(fewer.questions)) if not share(fewer.questions[i], 2)]

    def part(some: Sequence[int]) -> Asked:
        answers, questions = [fewer.answers[i] for i in some], [fewer.questions[i] for i in some]
        return Asked(asked.name, fewer.titles, fewer.texts, questions, fewer.right[some], answers)

    made = []
    for way, checked in (("", None), (", of checked questions", part(even))):
        some = part(odd)
        rows = answered(some, checked, **said)
        known = np.maximum(some.right, 0)
        rank = ranks_of(rows, Asked(some.name, some.titles, some.texts, some.questions, known, some.answers))
        right = (rank == 1) & (some.right >= 0)
        sure = np.array([row["confidence"] for row in rows])
        told = ~np.array([row["escalate"] for row in rows])
        gap = calibration.ece(np.stack([sure, 1 - sure], axis=1), (~right).astype(int))
        ours = float(right[told].mean()) if told.any() else 0.0
        note = f"{told.mean():.0%} answered; calibration error {gap:.3f}"
        line = Line("answer", f"{name}, a third of the passages gone", f"right where not escalated{way}", ours, 0.0, "")
        made.append(
            Line(**{**line.__dict__, "baseline": float(right.mean()), "against": "answering all", "note": note})
        )
        print(made[-1], flush=True)
    return made


def lines(data: Path) -> list[Line]:
    """English policies and medicine, Chinese articles."""
    policy = squad(data, "policyqa", "test")
    found = []
    every = ranks_of(answered(policy, model=ENCODER), policy)
    found += compared("policyqa test, all sites", every, bm25(policy) | {"vectors": vectors(policy)})
    sites = [[i for i, title in enumerate(policy.titles) if title == site] for site in dict.fromkeys(policy.titles)]
    apart = [policy.of(site) for site in sites]
    rows = [answered(site, model=ENCODER) for site in apart]
    ours = np.concatenate([ranks_of(told, site) for told, site in zip(rows, apart, strict=True)])
    others: dict[str, list[Ranks]] = {}
    for site in apart:
        for way, rank in (bm25(site) | {"vectors": vectors(site)}).items():
            others.setdefault(way, []).append(rank)
    each = {way: np.concatenate(some) for way, some in others.items()}
    found += compared("policyqa test, one site at a time", ours, each)
    whole = Asked("", [], [], [], ours, [spans for site in apart for spans in site.answers])
    found.append(quality("policyqa test, one site at a time", [row for told in rows for row in told], whole))

    chinese = squad(data, "cmrc2018_zh", "dev")
    told = answered(chinese)
    found += compared("cmrc2018_zh dev, no encoder", ranks_of(told, chinese), bm25(chinese))
    found.append(quality("cmrc2018_zh dev, no encoder", told, chinese))
    found += escalation("cmrc2018_zh dev, no encoder", chinese)

    some = medquad(data, lambda key: share(key, 24) == 1)
    told = answered(some, model=ENCODER)
    found += compared("medquad, a 24th", ranks_of(told, some), bm25(some) | {"vectors": vectors(some)})
    found += escalation("medquad, a 24th", some, model=ENCODER)
    whole = medquad(data, lambda key: True)
    asked = [i for i in range(len(whole.questions)) if share(whole.questions[i], 8) == 1]
    whole = whole.of(range(len(whole.texts)), asked)
    return found + compared("medquad, all passages, no encoder", ranks_of(answered(whole), whole), bm25(whole))


def bars(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """It finds more than BM25 alone on all three."""
    wanted = [line for line in lines if line.metric == "recall@5" and line.data != "policyqa test, all sites"]
    return [
        bench.bar(f"answer, {line.data}: recall@5 above BM25 alone", line.ours, _of_bm25(line.note)) for line in wanted
    ]


def _of_bm25(note: str) -> float:
    """The best of BM25's figures in a note."""
    return max(float(said.rsplit(" ", 1)[1]) for said in note.split("; ") if said.startswith("BM25"))


def _grams(text: str, sizes: Sequence[int]) -> list[str]:
    plain = "".join(text.casefold().split())
    return [plain[i : i + size] for size in sizes for i in range(len(plain) - size + 1)]
