"""A fine-tuning as `bizllm finetune` does it, without Ray and registry: what the training benchmarks share.

The input is checked and frozen, a plain process trains on it (torchrun; on CPUs a thread for each), the best weights
are exported, and the model's folder is loaded anew to answer validation and test. The control is fitted beside
it on the same rows. Seconds are of each stage; those of `train` include the start of the processes.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from bench import hardware

from bizllm.evaluate import resample
from bizllm.models.network import load_network
from bizllm.models.saved import read_info, write_info
from bizllm.train import control, judge, resampled, zero
from bizllm.train.export import export
from bizllm.train.frozen import freeze
from bizllm.train.judge import Answers
from bizllm.train.objectives.base import objective_class
from bizllm.train.prepare import Prepared, prepare
from bizllm.train.recipe import Recipe
from bizllm.train.work import Work

WORKERS = 2
os.environ.setdefault("DS_ACCELERATOR", zero.device_name())  # else DeepSpeed looks for one, and says so


@dataclass(frozen=True)
class Trained:
    """folder: the model's. figures: what goes into a result file. answers, rows, control: of validation and test."""

    folder: Path
    recipe: Recipe
    figures: dict[str, Any]
    answers: dict[str, Answers]
    rows: dict[str, pa.Table]
    control: dict[str, Answers]


def machine() -> str:
    """The machine in words, for a result."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "deepspeed"))
    numbers = zero.precision(_ANY, zero.device_name())
    return f"{hardware()}, {numbers}, Python {platform.python_version()}, {packages}"


def measured() -> dict[str, Any]:
    """When and where: what every result begins with."""
    return {
        "measured": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def train_and_score(said: Mapping[str, Any], folder: Path, with_control: bool = True) -> Trained:
    """Run a recipe to its end in `folder`, which must be new; its checkpoints are deleted, the model stays.

    said: a training file's values with absolute paths. Raises UserError as `finetune` does, RuntimeError where a
    process fails.
    """
    recipe = Recipe.model_validate({"output": str(folder), "promote": None, **said})
    seconds: dict[str, float] = {}
    with _timed(seconds, "encode"):
        prepared = prepare(recipe, place, zero.device_name())
        work, facts = freeze(prepared, folder / "work", place)
    beside: tuple[str, dict[str, Answers]] | None = None
    if with_control:
        with _timed(seconds, "control"):
            beside = _control(prepared, work)
    with _timed(seconds, "train"):
        torchrun(["-m", "bizllm.train.plain", str(work.folder)], 1, folder / "train.log", threads=os.cpu_count() or 1)
    summary = json.loads((work.folder / "summary.json").read_text())
    with _timed(seconds, "score"):
        model = folder / "model"
        trained = export(work, next((work.folder / "best").glob("best-*")), model)
        rows = {name: work.rows(name) for name, _ in prepared.parts.items() if name != "train"}
        answers = _answers(work, model, rows)
    figures = {
        "seconds": {name: round(spent, 1) for name, spent in seconds.items()},
        **{name: summary[name] for name in ("steps", "best_step", "tokens")},
        "tokens_per_s": round(steady_rate(work.folder / "metrics.jsonl")),
        "memory_mb": round(summary["memory_mb"]),  # of the first worker, its peak
        "parameters": trained.parameters,
        "trainable": trained.trainable,
        "rows": facts["rows"],
        "augmented": facts["augmented"],
        "replayed": facts["replayed"],
        "cut": facts["cut"],
        "warnings": list(prepared.warnings),
        "metrics": {name: one.metrics for name, one in answers.items()},
        "settings": recipe.model_dump(
            mode="json", include={"base", "objective", "method", "optim", "augment", "continual", "recipe", "seed"}
        ),
    }
    if "test" in answers:
        figures["intervals"] = resampled.intervals(answers["test"], rows["test"], work.info.labels)
    if beside is not None:
        name, theirs = beside
        figures["control"] = {"name": name, "metrics": {part: one.metrics for part, one in theirs.items()}}
        if "test" in theirs:
            figures["control"] |= _beside(answers["test"], theirs["test"], rows["test"], work)
    for name in ("checkpoints", "best"):
        shutil.rmtree(work.folder / name, ignore_errors=True)
    kept = {name: _in_memory(some) for name, some in rows.items()}
    return Trained(model, recipe, figures, answers, kept, beside[1] if beside else {})


def score(folder: Path, rows: pa.Table, recipe: Recipe, metrics: Sequence[str] = ("accuracy", "macro_f1")) -> dict:
    """A classifier's metrics with 95 % intervals on rows whose classes it need not know: those are wrong answers.

    rows: columns `text` and `label`.
    """
    info = read_info(folder)
    assert info is not None, "a model that was trained here says what it is"
    answers = judge.answer(folder, info, rows, recipe)
    return scored(answers, rows, metrics)


def scored(answers: Answers, rows: pa.Table, metrics: Sequence[str] = ("accuracy", "macro_f1")) -> dict[str, Any]:
    """As `score`, of answers that are there."""
    labels = tuple(sorted({*answers.info.labels, *rows["label"].to_pylist()}))
    found: dict[str, Any] = {"rows": len(rows)}
    for metric in metrics:
        drawn = resampled.resampled(metric, answers, rows, labels)
        assert drawn is not None, "classes can be resampled"
        found[metric] = drawn.metric(drawn.truth, drawn.given)
        found[f"{metric}_95"] = resample.interval(drawn.metric, (drawn.truth, drawn.given))
    return found


def correct(answers: Answers, rows: pa.Table) -> np.ndarray:
    """(rows,) whether a classifier's answer is right."""
    return answers.outputs["logits"].argmax(1) == judge.places(rows["label"], answers.info.labels)


def place(*keys: object) -> str:
    """Where a setting stands, as checks tell it: `data.train.path`."""
    return ".".join(map(str, keys))


def torchrun(arguments: Sequence[str], workers: int, log: Path, threads: int = 1, **environment: str) -> None:
    """Run that many processes of one group to their end. Raises RuntimeError with the end of what they said."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    said = {
        "OMP_NUM_THREADS": str(threads),
        "DS_ACCELERATOR": zero.device_name(),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parent), str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        ),
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        done = subprocess.run(
            [*command, *arguments], env={**os.environ, **said, **environment}, stdout=file, stderr=subprocess.STDOUT
        )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}:\n{log.read_text()[-3000:]}")


def steady_rate(metrics: Path) -> float:
    """Tokens a second of all workers, the median over windows of ten steps; the first, which warms up, is left out."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    rates = [line["tokens_per_s"] for line in lines if line["split"] == "train"]
    return float(np.median(rates[1:] or rates))


def random_bert(folder: Path, half: bool = False, **shape: int) -> Path:
    """A BERT of that shape with random weights; its tokenizer knows whole numbers, which stand for words. half: kept
    as bf16."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(**shape)
    return _random(folder, BertModel(config), half, config.vocab_size)


def random_gpt(folder: Path, texts: Sequence[str] = (), half: bool = False, **shape: int) -> Path:
    """A GPT-2 of that shape with random weights. Tokens are byte pairs of the texts, or else whole numbers. half: kept
    as bf16."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    if not texts:
        config = GPT2Config(**{"bos_token_id": 0, "eos_token_id": 0, **shape})
        return _random(folder, GPT2LMHeadModel(config), half, config.vocab_size)
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    pairs = ByteLevelBPETokenizer()
    pairs.train_from_iterator(texts, vocab_size=shape.get("vocab_size", 4_000), special_tokens=["<end>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pairs._tokenizer, eos_token="<end>", bos_token="<end>")
    config = GPT2Config(**{**shape, "vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0})
    _random(folder, GPT2LMHeadModel(config), half, None)
    tokenizer.save_pretrained(folder)
    return folder


def _random(folder: Path, model: Any, half: bool, words: int | None) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    (model.bfloat16() if half else model).save_pretrained(folder)
    if words is not None:
        plain = Tokenizer(models.WordLevel({"<end>": 0, **{str(i): i for i in range(1, words)}}, unk_token="<end>"))
        plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<end>", eos_token="<end>").save_pretrained(folder)
    return folder


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - began


def _control(prepared: Prepared, work: Work) -> tuple[str, dict[str, Answers]] | None:
    """The control's name and its answers to validation and test; as the run of a training file has it."""
    fitted = control.fit(prepared.parts.train.rows, prepared.info, prepared.recipe.seed)
    if fitted is None:
        return None
    info = replace(prepared.info, temperature=1.0, threshold=fitted.threshold)
    objective = objective_class(info.objective)(work.recipe, work.tokenizer, info)
    made = {}
    for name, part in prepared.parts.items():
        if name != "train":
            outputs = fitted.predict(part.rows)
            if "answers" not in outputs:
                made[name] = judge.judged(objective, outputs, part.rows)
    return (fitted.name, made) if made else None


def _answers(work: Work, folder: Path, rows: Mapping[str, pa.Table]) -> dict[str, Answers]:
    """Answers of the model in the folder, calibrated on validation; as the run of a training file has them."""
    objective = work.objective
    network = load_network(folder, work.info)
    raw = {name: judge.ask(objective, network, some) for name, some in rows.items()}
    info = judge.calibrated(objective, raw["validation"].outputs, rows["validation"])
    write_info(folder, info)
    told = type(objective)(work.recipe, work.tokenizer, info)
    return {name: judge.judged(told, one.outputs, rows[name]) for name, one in raw.items()}


def _beside(ours: Answers, theirs: Answers, rows: pa.Table, work: Work) -> dict[str, Any]:
    """The control's intervals, and the paired gain over it with bounds of 95 % each."""
    labels = work.info.labels
    metric = "accuracy" if "accuracy" in ours.metrics else work.objective.metric
    compared = resampled.compare(metric, ours, theirs, rows, labels, 0.95)
    return {
        "intervals": resampled.intervals(theirs, rows, labels),
        "gain": {"metric": metric, **compared.summary()},
    }


def _in_memory(rows: pa.Table) -> pa.Table:
    """A copy that outlives the file it was mapped from."""
    return pa.table({name: pa.array(rows[name].to_pylist(), rows[name].type) for name in rows.column_names})


_ANY = Recipe.model_validate(
    {"name": "any", "base": "builtin:minilm", "objective": "masked_lm", "data": {"train": {"path": "-", "text": "-"}}}
)
