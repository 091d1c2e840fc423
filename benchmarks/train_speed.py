"""Tokens a second of our training loop beside others: `BIZLLM_DATA=… python benchmarks/train_speed.py`.

Beside: Hugging Face's Trainer with DeepSpeed at the same ZeRO stage, as its documentation has it, once with batches
grouped by length and once with DeepSpeed's autocast in the place of bf16 weights, which is what our loop has on a CPU;
the Trainer without DeepSpeed (DDP); and a plain torch DDP loop. All train the same classifier (the built-in MiniLM with
transformers' own head) on the same rows, 32 of them a step on two gloo workers of a thread each, AdamW, gradients
clipped, in the same precision. Each run is a process group of its own; an epoch warms up and the next one is measured,
so that every system is timed on the same rows. Tokens are those of the texts: padding does not count. Systems take
turns, each round begins with another one, and ratios are taken within a round. Each runs as its documentation has it;
ours sets torch's huge pages, as `bizllm finetune` does, and two of the others are tried with them too.

Mixed lengths: customers' questions, review sentences, reviews, dialogues and passages in equal parts, cut at 256
tokens. Equal lengths: the same texts joined and cut into rows of 64 tokens.
Writes benchmarks/results/train_speed-zeroSTAGE.json and .md. The DDP peers shard nothing: stage 0 is their equal.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench import MIXED
from training import WORKERS, measured, place, torchrun

RESULTS = Path(__file__).parent / "results"
BATCH = 32  # rows of a step, of all workers
LONGEST, EQUAL = 256, 64  # tokens
CLASSES = 77
LR = 2e-5
HUGE = "huge pages"  # of the systems that are told to take them, as ours does by itself
Ticks = list[tuple[float, int]]  # after each step: when, and tokens of all steps so far (of this process, or of all)


# -- the systems, each in its own processes -----------------------------------------------------------------------


def ours(folder: Path, precision: str, stage: int) -> Ticks:
    """The project's loop, as `torchrun -m bizllm.train.plain` runs it."""
    from bizllm.train import loop, plain
    from bizllm.train.work import Work

    plain.open_group()
    training = loop._Training(Work.load(folder / "work"), plain.PlainHost(folder / "work"))
    step, ticks = training._step, []

    def timed(number: int, rows: Any) -> None:
        step(number, rows)
        # Its tokens are those of all workers; the others count their own.
        ticks.append((time.perf_counter(), training.tokens // WORKERS))

    training._step = timed  # type: ignore[method-assign]  # a clock around it
    training.run()
    return ticks


def trainer(
    folder: Path, precision: str, stage: int, deepspeed: bool = True, grouped: bool = False, autocast: bool = False
) -> Ticks:
    """Hugging Face's Trainer with its own padding collator."""
    from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    if deepspeed:
        without_compiling()
    small = precision == "bf16"
    numbers = {"torch_autocast": {"enabled": small, "dtype": "bfloat16"}} if autocast else {"bf16": {"enabled": "auto"}}
    config = {
        "zero_optimization": {"stage": stage},
        **numbers,
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
    }
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        use_cpu=True,
        ddp_backend="gloo",
        per_device_train_batch_size=BATCH // WORKERS,
        num_train_epochs=2,
        learning_rate=LR,
        lr_scheduler_type="constant",
        weight_decay=0.01,
        bf16=small and not autocast,
        train_sampling_strategy="group_by_length" if grouped else "random",
        dataloader_num_workers=0,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        deepspeed=config if deepspeed else None,
    )
    model, tokenizer = network()
    tokens, ticks = counted(model), []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ticks.append((time.perf_counter(), tokens[0]))

    Trainer(
        model=model,
        args=arguments,
        train_dataset=rows_of(folder),
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[Clock()],
    ).train()
    return ticks


def ddp(folder: Path, precision: str, stage: int) -> Ticks:
    """Torch's own parts: DistributedDataParallel, DataLoader, autocast, fused AdamW."""
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data import DataLoader, DistributedSampler
    from transformers import DataCollatorWithPadding

    dist.init_process_group("gloo")
    torch.manual_seed(1)
    model, tokenizer = network()
    tokens, ticks = counted(model), []
    model.train()
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=LR, weight_decay=0.01, fused=True)
    rows = rows_of(folder)
    sampler = DistributedSampler(rows)
    loader = DataLoader(rows, BATCH // WORKERS, sampler=sampler, collate_fn=DataCollatorWithPadding(tokenizer))
    for epoch in range(2):
        sampler.set_epoch(epoch)
        for batch in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = wrapped(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(wrapped.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            ticks.append((time.perf_counter(), tokens[0]))
    dist.destroy_process_group()
    return ticks


SYSTEMS: dict[str, Callable[[Path, str, int], Ticks]] = {
    "ours": ours,
    "Trainer + DeepSpeed": trainer,
    "Trainer + DeepSpeed, group_by_length": lambda *a: trainer(*a, grouped=True),
    "Trainer + DeepSpeed, autocast": lambda *a: trainer(*a, autocast=True),
    "Trainer (DDP)": lambda *a: trainer(*a, deepspeed=False),
    "plain DDP": ddp,
    f"Trainer + DeepSpeed, {HUGE}": trainer,
    f"plain DDP, {HUGE}": ddp,
}


def network() -> tuple[Any, Any]:
    """The model that all train, and its tokenizer."""
    from transformers import AutoModelForSequenceClassification

    from bizllm.models.load import resolve
    from bizllm.train.work import load_tokenizer

    base = resolve("builtin:minilm", ".", "base", "").folder
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=CLASSES, local_files_only=True)
    return model, load_tokenizer(base)


def counted(model: Any) -> list[int]:
    """One number, to which every forward pass adds its tokens without padding."""
    total = [0]

    def count(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        total[0] += int(inputs["attention_mask"].sum())

    model.register_forward_pre_hook(count, with_kwargs=True)
    return total


def rows_of(folder: Path) -> Any:
    """The rows that our loop reads, as others want them."""
    import pyarrow.ipc

    with pa.memory_map(str(folder / "work" / "train.arrow")) as source:
        table = pyarrow.ipc.open_file(source).read_all()
    return [
        {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": target}
        for ids, target in zip(table["input_ids"].to_pylist(), table["target"].to_pylist(), strict=True)
    ]


def without_compiling() -> None:
    """DeepSpeed's shared-memory collectives serve inference alone, and take a minute to compile."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def worker(system: str, folder: Path, precision: str, stage: int) -> None:
    """What each process of a run does; its ticks go to the folder."""
    rank = os.environ["RANK"]
    ticks = SYSTEMS[system](folder, precision, stage)
    (folder / f"ticks.{rank}.json").write_text(json.dumps(ticks))


# -- the driver ---------------------------------------------------------------------------------------------------


def frozen(folder: Path, shape: str, rows: int, precision: str, stage: int) -> None:
    """Our loop's work folder; the rows in it are everybody's."""
    from bizllm.train.frozen import freeze
    from bizllm.train.prepare import prepare
    from bizllm.train.recipe import Recipe

    texts = sample(rows)
    labels = (np.arange(len(texts)) % CLASSES).tolist()
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"text": texts, "label": labels}), folder / "rows.parquet")
    pq.write_table(pa.table({"text": texts[:CLASSES], "label": labels[:CLASSES]}), folder / "validation.parquet")
    recipe = Recipe.model_validate(
        {
            "name": "speed",
            "base": "builtin:minilm",
            "objective": "classification",
            "pooling": "native",
            "max_tokens": LONGEST,
            "data": {
                "train": {"path": str(folder / "rows.parquet"), "text": "text", "label": "label"},
                "validation": {"path": str(folder / "validation.parquet")},
                "drop_overlap": "none",
            },
            "optim": {"lr": LR, "head_lr": LR, "epochs": 2, "batch": BATCH, "schedule": "constant", "warmup": 0.0},
            "stop": {"every": 10**9},
            "zero": {"stage": stage, "precision": precision},
            "output": str(folder),
            "promote": None,
        }
    )
    work, _ = freeze(prepare(recipe, place, "cpu"), folder / "work", place)
    if shape == "equal":
        flat = np.concatenate([np.array(ids, np.int32) for ids in work.examples("train")["input_ids"].to_pylist()])
        many = min(rows, len(flat) // EQUAL)
        ids = flat[: many * EQUAL].reshape(many, EQUAL).tolist()
        table = pa.table(
            {
                "input_ids": pa.array(ids, pa.list_(pa.int32())),
                "cut": pa.array([False] * many),
                "target": pa.array(np.arange(many, dtype=np.int32) % CLASSES),
            }
        )
        work.write("train", table)


def sample(rows: int) -> list[str]:
    """So many texts, in equal parts of the sources, in a mixed order."""
    data = Path(os.environ["BIZLLM_DATA"])
    rng = np.random.default_rng(0)
    texts: list[str] = []
    for name, file, column in MIXED:
        values = pq.read_table(data / name / f"{file}.parquet")[column].to_pylist()
        flat = [text for value in values for text in (value if isinstance(value, list) else [value])]
        picked = rng.choice(len(flat), -(-rows // len(MIXED)), replace=False)
        texts += [flat[i] for i in picked]
    return [texts[i] for i in rng.permutation(len(texts))[:rows]]


def rate(system: str, folder: Path, precision: str, stage: int) -> float:
    """Tokens a second of all workers in the second epoch."""
    for name in ("checkpoints", "best", "metrics.jsonl"):
        path = folder / "work" / name
        if path.exists():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    log = folder / "run.log"
    said = ["--worker", system, str(folder), "--precision", precision, "--stage", str(stage)]
    setting = {"THP_MEM_ALLOC_ENABLE": "1"} if system.endswith(HUGE) else {}
    torchrun([__file__, *said], WORKERS, log, **setting)
    found = [json.loads((folder / f"ticks.{rank}.json").read_text()) for rank in range(WORKERS)]
    steps = len(found[0])
    begin, end = steps // 2 - 1, steps - 1
    tokens = sum(ticks[end][1] - ticks[begin][1] for ticks in found)
    return float(tokens / (found[0][end][0] - found[0][begin][0]))


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    lines = [
        "# Training: tokens a second",
        "",
        f"{report['measured']}, {report['machine']}, load {report['load_before']} before. ZeRO stage "
        f"{report['stage']}, {report['precision']}, {BATCH} rows a step, two gloo workers of a thread each.",
        "",
        "Medians of the rounds; the ratio is ours over theirs within a round, its median, least and most. Where",
        "nothing else is said, Trainer + DeepSpeed in bf16 keeps bf16 weights with an fp32 copy in the optimizer; the",
        "others compute in bf16 by autocast over fp32 weights. Ours sets torch's huge pages, as `bizllm finetune`",
        "does.",
        "",
        "| lengths | system | tokens/s | ours is … times as fast |",
        "|---|---|---|---|",
    ]
    for shape, part in report["shapes"].items():
        for system, row in part["systems"].items():
            ratio = "" if system == "ours" else "{1:.2f} ({0:.2f}-{2:.2f})".format(*row["ratio"])
            shown = f"failed: {row['failed']}" if "failed" in row else f"{row['tokens_per_s']:,.0f}"
            lines.append(f"| {shape} ({part['rows']} rows) | {system} | {shown} | {ratio} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds and write the results; or be one process of a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=960)
    parser.add_argument("--shapes", nargs="+", default=["mixed", "equal"], choices=["mixed", "equal"])
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--stage", type=int, default=1, choices=[0, 1, 2, 3])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--worker", nargs=2, metavar=("SYSTEM", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.worker:
        worker(given.worker[0], Path(given.worker[1]), given.precision, given.stage)
        return
    report: dict[str, Any] = {**measured(), "stage": given.stage, "precision": given.precision, "shapes": {}}
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bizllm-bench-") as scratch:
        for shape in given.shapes:
            folder = Path(scratch) / shape
            frozen(folder, shape, given.rows, given.precision, given.stage)
            rates: dict[str, list[float]] = {system: [] for system in given.systems}
            failed: dict[str, str] = {}
            for round_ in range(given.rounds):
                turn = round_ % len(given.systems)
                for system in [*given.systems[turn:], *given.systems[:turn]]:
                    if system in failed:
                        continue
                    try:
                        rates[system].append(rate(system, folder, given.precision, given.stage))
                    except RuntimeError as error:
                        failed[system] = str(error).strip().splitlines()[-1][:300]
                        print(error, file=sys.stderr)
                        continue
                    print(f"{shape}, round {round_ + 1}, {system}: {rates[system][-1]:,.0f} tokens/s", flush=True)
            systems: dict[str, Any] = {}
            for system in given.systems:
                if system in failed:
                    systems[system] = {"failed": failed[system], "ratio": [float("nan")] * 3}
                    continue
                ratios = np.array(rates.get("ours", rates[system])) / np.array(rates[system])
                systems[system] = {
                    "tokens_per_s": float(np.median(rates[system])),
                    "rounds": rates[system],
                    "ratio": [float(x) for x in np.quantile(ratios, [0, 0.5, 1])],
                }
            report["shapes"][shape] = {"rows": given.rows, "systems": systems}
            file = given.out / f"train_speed-zero{given.stage}.json"
            file.write_text(json.dumps(report, indent=1) + "\n")
            file.with_suffix(".md").write_text(markdown(report))
    print(markdown(report))


if __name__ == "__main__":
    main()
