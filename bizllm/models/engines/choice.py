"""Which engine computes a model's outputs: measured on the step's own texts, once for each model and kind of machine.

torch in float32 says what is right. Every engine that is asked for, or that might be faster, computes the same windows;
of those that agree the fastest is chosen, then the size of its batches. The choice, with the converted network beside
it, is kept in the warehouse, so that all workers use the same one and later nights do not ask again.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bizllm.errors import safe_text
from bizllm.models.batches import Floats, Whole, Windows, placement
from bizllm.models.engines.agreement import Agreement, agreement
from bizllm.models.engines.base import Engine, Name, Network, Precision, all_answers, machine
from bizllm.models.engines.packed_engine import PackedEngine
from bizllm.models.engines.torch_engine import TorchEngine

AskedEngine = Literal["auto", "torch", "packed", "openvino", "onnxruntime"]
AskedPrecision = Literal["auto", "float32", "bfloat16", "int8"]
Option = tuple[Name, Precision]

SAMPLE_TOKENS, SAMPLE_WINDOWS = 32_768, 1_024
REFERENCE_S = 6.0  # torch in float32 stops there, after at least LEAST windows
LEAST = 64
TIMED_S, SLOW_S = 1.0, 4.0
CPU_BUDGETS, GPU_BUDGETS = (512, 1_024, 2_048), (16_384, 65_536, 262_144)
CLEARLY = 1.03  # a budget other than the usual one must be so many times as fast


@dataclass(frozen=True)
class Wanted:
    """What a step asks for."""

    engine: AskedEngine = "auto"
    precision: AskedPrecision = "auto"


@dataclass(frozen=True)
class Choice:
    """An engine for a model on a kind of machine.

    budget: tokens of a batch. tokens_per_s: on the sample. agreement, windows: with torch in float32.
    files: the folder of the converted network, below the choice's own; empty for torch.
    fell_back: why what was asked for, or what is faster, is not used; one line each.
    """

    engine: Name
    precision: Precision
    budget: int
    machine: str
    threads: int
    tokens_per_s: float
    agreement: str
    files: str = ""
    fell_back: tuple[str, ...] = ()
    tried: dict[str, float] = field(default_factory=dict)  # tokens/s of each that agreed

    def __str__(self) -> str:
        """In the ledger and the report."""
        rate = f"{self.tokens_per_s:,.0f} tokens/s on {self.threads} {'thread' if self.threads == 1 else 'threads'}"
        return "; ".join([f"{self.engine} {self.precision}, {rate}, {self.agreement}", *self.fell_back])

    def to_json(self) -> str:
        """`from_json` reads it."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(text: str | bytes) -> Choice:
        """What `to_json` wrote."""
        said: dict[str, Any] = json.loads(text)
        return Choice(**{**said, "fell_back": tuple(said["fell_back"])})


def engine_of(choice: Choice | None, network: Network, folder: Path | None, threads: int) -> Engine:
    """The chosen engine; torch, as is fastest, where nothing was chosen, this machine is of another kind, or the
    converted network is gone. folder: of that network."""
    if choice is None or choice.machine != machine() or (choice.files and folder is None):
        return TorchEngine(network)
    engine: Engine
    if choice.engine == "packed":
        engine = PackedEngine(network)
    elif choice.files:
        engine = _converters(choice.engine).Converted(network, folder, choice.precision, threads)
    else:
        engine = TorchEngine(network, precision=choice.precision)
    engine.budget = choice.budget
    return engine


def installed(name: Name) -> bool:
    """Whether the engine's package is there; torch is."""
    return name == "packed" or importlib.util.find_spec(name) is not None


def tiers(wanted: Wanted) -> list[list[Option]]:
    """What is tried: of the first tier with an engine that agrees the fastest is chosen; torch in float32 is last."""
    device, best = placement(None, None)
    low: list[Precision] = ["bfloat16"] if best == "bfloat16" else []
    precisions: dict[AskedPrecision, list[Precision]] = {
        "auto": [*low, "float32"],
        "float32": ["float32"],
        "bfloat16": [*low, "float32"],
        "int8": ["int8", *low, "float32"],
    }
    names: list[Name] = ["torch"]
    if wanted.engine == "auto":
        others: tuple[Name, ...] = ("openvino", "onnxruntime") if device == "cpu" else ("packed",)
        names = [*[name for name in others if installed(name)][:1], "torch"]
    elif not _elsewhere(wanted):
        names = [wanted.engine]
    found = [[(name, p) for name in names if _able(name, p)] for p in precisions[wanted.precision]]
    if "torch" not in names:
        found += [[("torch", p)] for p in precisions[wanted.precision] if _able("torch", p)]
    return [tier for tier in found if tier]


def _able(name: Name, precision: Precision) -> bool:
    if name == "packed":
        return precision == "bfloat16"
    return (name, precision) not in (("onnxruntime", "bfloat16"), ("torch", "int8"))


def choose(network: Network, windows: Windows, wanted: Wanted, work: Path, threads: int) -> Choice:
    """Measure on a sample of the windows, and choose. The files of the chosen engine are in `work / choice.files`.

    work: an empty folder.
    """
    sample = windows.take(_sampled(windows))
    reference = _reference(network, sample)
    sample = sample.take(np.arange(len(reference)))
    fell_back = _elsewhere(wanted)
    tried: dict[str, float] = {}
    for tier in tiers(wanted):
        best: tuple[float, Option, Engine, Agreement] | None = None
        for option in tier:
            name = " ".join(option)
            try:
                for spare in (False, True) if option[1] == "int8" else (False,):
                    engine = _prepared(option, network, sample, work, threads, spare)
                    began = time.perf_counter()
                    found = agreement(network.kind, reference, all_answers(engine, network, sample), network.cut)
                    took = time.perf_counter() - began
                    if found.enough or network.kind == "vectors":  # far too much is missing there
                        break
            except Exception as fault:  # whatever a converter does not know
                fell_back.append(f"{name} can't be had ({safe_text(fault)})")
                continue
            if not found.enough and option != ("torch", "float32"):
                fell_back.append(f"{name} does not agree ({found})")
                continue
            # The first time is slower than the next; where it took long it is told well enough.
            tried[name] = round(sample.lengths.sum() / took if took > SLOW_S else _rate(engine, sample), 1)
            if best is None or tried[name] > best[0]:
                best = tried[name], option, engine, found
        if best is not None:
            rate, option, engine, found = best
            budget, rate = _budget(engine, sample, rate)
            files = "" if option[0] in ("torch", "packed") else _folder(option)
            return Choice(*option, budget, machine(), threads, rate, str(found), files, tuple(fell_back), tried)
    raise AssertionError("torch in float32 agrees with itself")


def _elsewhere(wanted: Wanted) -> list[str]:
    """What is told where the engine that is asked for is one of another kind of device."""
    on_gpu = placement(None, None)[0] != "cpu"
    if wanted.engine == "packed" and not on_gpu:
        return ["packed is for GPUs"]
    if wanted.engine in ("openvino", "onnxruntime") and on_gpu:
        return [f"{wanted.engine} is for CPUs"]
    return []


def _converters(name: Name) -> Any:
    return importlib.import_module(f"bizllm.models.engines.{'onnx' if name == 'onnxruntime' else name}_engine")


def _folder(option: Option) -> str:
    name, precision = option
    return f"{name}-int8" if precision == "int8" else name


def _prepared(
    option: Option, network: Network, sample: Windows, work: Path, threads: int, spare: bool = False
) -> Engine:
    """The engine, with what it computes converted. spare: of int8, the products that quantize worst."""
    name, precision = option
    if name == "torch":
        return TorchEngine(network, precision=precision)
    if name == "packed":
        return PackedEngine(network)
    converters = _converters(name)
    plain, folder = work / name, work / _folder(option)
    if not plain.exists():
        plain.mkdir()
        converters.convert(network, plain)
    if folder != plain:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        converters.quantize(network, plain, folder, sample, spare)
    engine: Engine = converters.Converted(network, folder, precision, threads)
    return engine


def _sampled(windows: Windows) -> Whole:
    """Some windows, at random but always the same."""
    order = np.random.default_rng(0).permutation(len(windows))
    within = np.cumsum(windows.lengths[order]) <= SAMPLE_TOKENS
    return order[: max(1, min(SAMPLE_WINDOWS, int(within.sum())))]


def _reference(network: Network, sample: Windows) -> list[Floats]:
    """What torch says of the first windows, as many as it can read in REFERENCE_S."""
    engine = TorchEngine(network, precision="float32")
    began, found = time.perf_counter(), list[Floats]()
    while len(found) < len(sample) and (len(found) < LEAST or time.perf_counter() - began < REFERENCE_S):
        some = np.arange(len(found), min(len(sample), len(found) + LEAST))
        found += all_answers(engine, network, sample.take(some))
    return found


def _rate(engine: Engine, sample: Windows) -> float:
    """Tokens a second."""
    began, times = time.perf_counter(), 0
    while times == 0 or time.perf_counter() - began < TIMED_S:
        for _ in engine.outputs(sample):
            pass
        times += 1
    return float(times * sample.lengths.sum() / (time.perf_counter() - began))


def _budget(engine: Engine, sample: Windows, usual: float) -> tuple[int, float]:
    """(tokens of a batch, tokens a second): the usual size, unless another is clearly faster."""
    best, rate = engine.budget, usual
    for budget in CPU_BUDGETS if engine.budget in CPU_BUDGETS else GPU_BUDGETS:
        if budget != best and budget < sample.lengths.sum():
            engine.budget = budget
            found = _rate(engine, sample)
            if found > max(rate, usual * CLEARLY):
                best, rate = budget, found
    return best, round(rate, 1)
