"""ROUGE of `summarize` beside LEAD-3, random sentences and TextRank: `python benchmarks/summarize.py [--split dev]`.

Data: the folder that BIZLLM_DATA names (fewsum_reviews, mts_dialog, csl_title_zh). Every system chooses from the same
sentences, once with the same number of them (3; 1 for titles) and once with the same number of characters. LEAD is cut
at the character budget in the middle of a sentence, the others leave out what does not fit. English: rouge-score with
its stemmer; Chinese: rouge-score over characters. Several references: the mean over them. Intervals: paired bootstrap,
10,000 resamples of the texts. Writes benchmarks/results/summarize-SPLIT.json and .md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import re
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import networkx as nx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rouge_score.rouge_scorer import RougeScorer

from bizllm.methods import extract, sentences
from bizllm.models.load import ModelLoader
from bizllm.tasks.base import StepInput
from bizllm.tasks.summarize import TASK

METRICS = ("rouge1", "rouge2", "rougeL")
RESULTS = Path(__file__).parent / "results"
# data set → (development files, test files, text column, reference column, sentences, characters, Chinese)
# The character budgets are about the mean length of the references on the development files.
SETS = {
    "fewsum_reviews": (("train", "val"), ("test",), "reviews", "summaries", 3, 300, False),
    "mts_dialog": (("train", "validation"), ("test1", "test2"), "dialogue", "section_text", 3, 200, False),
    "csl_title_zh": (("dev",), ("test",), "abstract", "title", 1, 40, True),
}
Chooser = Callable[[list[str], int | None, int | None], list[int]]


class Characters:
    """rouge-score's tokenizer for Chinese: letters and digits, one by one."""

    def tokenize(self, text: str) -> list[str]:
        return [c for c in text.lower() if c.isalnum()]


def take(order: list[int], found: list[str], count: int | None, chars: int | None) -> list[int]:
    """The first sentences of `order` that the budget holds, in the order of the text."""
    if count is not None:
        return sorted(order[:count])
    kept, used = [], 0
    for i in order:
        if used + len(found[i]) <= chars:
            kept.append(i)
            used += len(found[i]) + 1
    return sorted(kept or order[:1])


def lead(found: list[str], count: int | None, chars: int | None) -> list[int]:
    return list(range(len(found)))[: count or None]


def at_random(seed: int) -> Chooser:
    def choose(found: list[str], count: int | None, chars: int | None) -> list[int]:
        order = list(range(len(found)))
        random.Random(f"{seed} {found}").shuffle(order)
        return take(order, found, count, chars)

    return choose


def textrank(found: list[str], count: int | None, chars: int | None) -> list[int]:
    """Mihalcea and Tarau 2004: word overlap over the sum of log lengths, weighted PageRank with damping 0.85."""
    words = [set(re.findall(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+", s.lower())) for s in found]
    graph = nx.Graph()
    graph.add_nodes_from(range(len(found)))
    for i in range(len(found)):
        for j in range(i):
            scale = math.log(max(len(words[i]), 1)) + math.log(max(len(words[j]), 1))
            if scale > 0 and (shared := len(words[i] & words[j])):
                graph.add_edge(i, j, weight=shared / scale)
    rank = nx.pagerank(graph, alpha=0.85, max_iter=500)
    return take(sorted(rank, key=lambda i: -rank[i]), found, count, chars)


def split_all(texts: list[str]) -> list[str]:
    """The sentences of a row as the task sees them: by turns, without labels, where it is a dialogue."""
    return [
        text[start + begin : start + stop]
        for text in texts
        for start, end in (sentences.turns(text) or [(0, len(text))])
        for begin, stop in sentences.split(text[start:end])
    ]


def ours(rows: pa.Table, column: str, model: str | None, loader: ModelLoader, **length: int) -> list[str]:
    settings = TASK.Settings(task="summarize", input="rows", text=column, model=model, **length)
    task = TASK(settings, StepInput("rows", rows.schema), date(2026, 1, 1))
    task.open(loader)
    outcome = task.answer(rows)
    assert outcome.subject.tolist() == list(range(rows.num_rows)), "every benchmark row is answered"
    return outcome.columns["summary"].to_pylist()


def rouge(scorer: RougeScorer, answer: str, references: list[str]) -> list[float]:
    scores = [scorer.score(reference, answer) for reference in references]
    return [float(np.mean([s[m].fmeasure for s in scores])) for m in METRICS]


def bootstrap(difference: np.ndarray, rounds: int = 10_000) -> tuple[float, float]:
    picks = np.random.default_rng(0).integers(0, len(difference), (rounds, len(difference)))
    low, high = np.percentile(difference[picks].mean(1), [2.5, 97.5])
    return float(low), float(high)


def run_set(name: str, split: str, limit: int | None, loader: ModelLoader) -> list[dict]:
    dev, test, column, reference, count, chars, chinese = SETS[name]
    folder = Path(os.environ["BIZLLM_DATA"], name)
    rows = pa.concat_tables([pq.read_table(folder / f"{f}.parquet") for f in (test if split == "test" else dev)])
    rows = rows.slice(0, limit)
    texts = [t if isinstance(t, list) else [t] for t in rows[column].to_pylist()]
    references = [r if isinstance(r, list) else [r] for r in rows[reference].to_pylist()]
    found = [split_all(t) for t in texts]
    scorer = RougeScorer(METRICS, use_stemmer=True, tokenizer=Characters() if chinese else None)

    entries = []
    for budget in ({"max_sentences": count}, {"max_chars": chars}):
        n, c = budget.get("max_sentences"), budget.get("max_chars")

        def baseline(choose: Chooser, n: int | None = n, c: int | None = c) -> list[str]:
            return [extract.join([s[i] for i in choose(s, n, c)])[:c] for s in found]

        systems = {
            "lead": [baseline(lead)],
            "random": [baseline(at_random(seed)) for seed in range(3)],
            "textrank": [baseline(textrank)],
            "ours, no model": [ours(rows, column, None, loader, **budget)],
            "ours, builtin:minilm": [ours(rows, column, "builtin:minilm", loader, **budget)],
        }
        scores = {
            system: np.mean([[rouge(scorer, a, r) for a, r in zip(run, references, strict=True)] for run in runs], 0)
            for system, runs in systems.items()
        }  # (texts, metrics)
        for system, runs in systems.items():
            low, high = bootstrap(scores[system][:, 0] - scores["lead"][:, 0])
            entries.append(
                {
                    "data": name,
                    "texts": rows.num_rows,
                    "budget": f"{n} sentences" if n else f"{c} characters",
                    "system": system,
                    **{m: round(100 * float(v), 2) for m, v in zip(METRICS, scores[system].mean(0), strict=True)},
                    "rouge1_minus_lead_95": [round(100 * low, 2), round(100 * high, 2)],
                    "mean_chars": round(float(np.mean([len(a) for run in runs for a in run])), 1),
                }
            )
            print(entries[-1], flush=True)
    return entries


def markdown(report: dict) -> str:
    lines = [
        f"# summarize: ROUGE F1, {report['split']} parts",
        "",
        f"{report['date']}, {report['machine']}, torch {report['torch']}, {report['seconds']} s in all.",
        "",
        "LEAD: the first sentences. Random: mean of 3 seeds. TextRank: Mihalcea and Tarau 2004. Last column but one:",
        "95 % interval of the ROUGE-1 difference to LEAD. English with stemming; Chinese by characters; fewsum: mean",
        "over 3 references. Lengths differ where the budget counts sentences, and ROUGE F1 depends on length (those of",
        "mts_dialog run from one word to a page): read those rows beside the ones with the same characters.",
        "csl_title_zh asks for titles: the first sentence of an abstract is close to its title, and LEAD wins there.",
        "",
        "| data | budget | system | R-1 | R-2 | R-L | R-1 minus LEAD | mean characters |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for e in report["entries"]:
        low, high = e["rouge1_minus_lead_95"]
        interval = "" if e["system"] == "lead" else f"{low:+.2f} … {high:+.2f}"
        lines.append(
            f"| {e['data']} ({e['texts']}) | {e['budget']} | {e['system']} | {e['rouge1']:.2f} | {e['rouge2']:.2f} "
            f"| {e['rougeL']:.2f} | {interval} | {e['mean_chars']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    parser.add_argument("--data", choices=tuple(SETS), nargs="*", default=list(SETS))
    parser.add_argument("--limit", type=int, help="first rows only; then nothing is written")
    args = parser.parse_args()
    started, loader = time.monotonic(), ModelLoader()
    entries = [entry for name in args.data for entry in run_set(name, args.split, args.limit, loader)]
    report = {
        "split": args.split,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {loader.encoder('builtin:minilm').dtype}",
        "torch": torch.__version__,
        "seconds": round(time.monotonic() - started),
        "entries": entries,
    }
    if args.limit is None and args.data == list(SETS):
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"summarize-{args.split}.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        (RESULTS / f"summarize-{args.split}.md").write_text(markdown(report), "utf-8")


if __name__ == "__main__":
    main()
