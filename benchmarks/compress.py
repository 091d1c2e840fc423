"""What smaller models of a fine-tuned one lose and gain.

    BIZLLM_DATA=… python benchmarks/compress.py [--teacher path:DIR] [--epochs 6] [--alone]

The teacher: the packed encoder, fine-tuned on Banking77's train (77 intents) where none is named. Students learn its
answers to the texts of train, without their labels; scores are of Banking77's test. Speed is what the engine reads that
a night would choose, on a sample of the texts. `--alone`: students of the same shape that are fine-tuned on train's
labels instead.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path
from typing import Any

import bench
import yaml

from bizllm import api

STUDENTS: tuple[dict[str, Any], ...] = (
    {"layers": 3},
    {"layers": 3, "feed_forward": 0.5},
    {"layers": 2},
)
TEACHER = {"lr": 1e-4, "epochs": 4, "batch": 32}
PUPIL = {"lr": 3e-4, "head_lr": 3e-4, "epochs": 6, "batch": 32}


def tables() -> dict[str, dict[str, str]]:
    """Banking77."""
    folder = Path(os.environ["BIZLLM_DATA"], "banking77")
    columns = {"text": "text", "label": "intent"}
    return {part: {"path": str(folder / f"{part}.parquet"), **columns} for part in ("train", "test")}


def written(folder: Path, name: str, said: dict[str, Any]) -> str:
    """A YAML file."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"output": "models", "registry": "registry.db", "workers": 1, **said}))
    return str(path)


def fine_tuned(folder: Path, base: str, name: str, **more: Any) -> dict[str, Any]:
    """A training on train's labels."""
    said = {"name": name, "base": base, "objective": "classification", "pooling": "mean", "data": tables(), **more}
    return api.finetune(written(folder, name, {"promote": None, **said}))


def main() -> int:
    """Train, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--teacher", help="URI of a model that was fine-tuned on Banking77's train")
    parser.add_argument("--epochs", type=float, default=PUPIL["epochs"])
    parser.add_argument("--alone", action="store_true", help="train students on the labels, too: twice the time")
    parser.add_argument("--out", type=Path, default=bench.RESULTS)
    given = parser.parse_args()
    machine = bench.machine("torch", "transformers", "deepspeed", "openvino", "nncf")
    optim = {**PUPIL, "epochs": given.epochs}
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        teacher = given.teacher or fine_tuned(folder, "builtin:minilm", "teacher", optim=TEACHER)["model"]
        data = tables()
        train = {key: data["train"][key] for key in ("path", "text")}
        said = {"data": {"train": train, "test": data["test"]}, "students": list(STUDENTS), "optim": optim}
        made = api.compress(
            teacher, written(folder, "compress", {"name": "pupil", **said}), registry=str(folder / "registry.db")
        )
        alone = [
            fine_tuned(folder, teacher, f"alone{i}", prune=student, optim=optim)["metrics"]["test"][made["metric"]]
            for i, student in enumerate(STUDENTS)
            if given.alone
        ]
    head = [
        "model",
        "parameters, millions",
        made["metric"],
        "loss, 95 % interval",
        "agrees",
        "tokens/s",
        "times",
        "int8, tokens/s",
    ]
    head.append("without a teacher")
    theirs, counts = made["teacher"], made["rows"]
    rows = [
        [f"teacher, {theirs['layers']} layers", *sizes(theirs), "", "", f"{theirs['tokens_per_s']:,.0f}", "", "", ""]
    ]
    for student, score in zip_longest(made["students"], alone):
        shape = f"{student['layers']} layers"
        if student["feed_forward"] < 1:
            shape += f", {student['feed_forward']:.0%} of feed-forward"
        rows.append(
            [
                shape,
                *sizes(student),
                f"{student['loss']:+.4f} ({student['low']:+.4f} to {student['high']:+.4f})",
                f"{student['agreement']:.1%}",
                f"{student['tokens_per_s']:,.0f}",
                f"{student['times']:.2f}×",
                f"{student['int8']['tokens_per_s']:,.0f}" if student["int8"] else "does not agree",
                "" if score is None else f"{score:.4f}",
            ]
        )
    text = f"""# Smaller models

{machine}.
How: benchmarks/compress.py. {counts["train"]:,} texts to learn from, {counts["apart"]:,} apart for the agreement,
{counts["test"]:,} of test for the score; {given.epochs:g} epochs.

{bench.table(head, rows)}

The smallest that loses at most {made["max_loss"]:g}: {shape_of(made)}.
"""
    bench.write("compress", {"machine": machine, "made": made, "alone": alone, "bars": []}, text, given.out)
    return 0


def sizes(model: dict[str, Any]) -> list[str]:
    """Parameters and score."""
    return [f"{model['parameters'] / 1e6:.1f}", f"{model['score']:.4f}"]


def shape_of(made: dict[str, Any]) -> str:
    """Of the smallest student that is good enough, in words."""
    found = next((student for student in made["students"] if student["model"] == made["smallest"]), None)
    return f"{found['layers']} layers, {found['parameters'] / 1e6:.1f} million parameters" if found else "none"


if __name__ == "__main__":
    sys.exit(main())
