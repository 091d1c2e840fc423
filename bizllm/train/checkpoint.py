"""Checkpoints of a training: DeepSpeed's shards, written by every worker; and the best weights, as safetensors.

DeepSpeed's files are pickles: they are loaded from the run's own folder alone, and never for inference.
"""

from __future__ import annotations

import errno
import io
import json
import shutil
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from bizllm.errors import RunError

STATE = "state.json"
TAG = "shards"
UNIVERSAL = "universal"
WEIGHTS = "weights.safetensors"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_space(folder: Path) -> Iterator[None]:
    """A full disk as one clear error. The checkpoint before stays what it was: a new one has a folder of its own."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise RunError(f"{folder}: no space left for a checkpoint; the one before it is whole") from error
        raise
    except RuntimeError as error:  # torch.save's writer says so in words alone
        if "No space left" in str(error) or "unexpected pos" in str(error) or "PytorchStreamWriter" in str(error):
            raise RunError(f"{folder}: no space left for a checkpoint; the one before it is whole") from error
        raise


def save(engine: Any, folder: Path, state: dict[str, Any], rank: int, more: dict[str, Any]) -> None:
    """Write this worker's shards into the folder, and on rank 0 the state beside them. All workers must call it.

    more: tensors that are the same on all workers; `load` gives them back.
    """
    with disk_space(folder):
        folder.mkdir(parents=True, exist_ok=True)
        frozen = _frozen(engine.module)
        engine.save_checkpoint(
            str(folder), tag=TAG, client_state=more, save_latest=False, exclude_frozen_parameters=frozen
        )
        if rank == 0:
            (folder / STATE).write_text(json.dumps(state), "utf-8")


def state_of(folder: Path) -> dict[str, Any]:
    """What `save` was given."""
    return dict(json.loads((folder / STATE).read_text("utf-8")))


def for_workers(folder: Path, workers: int, stage: int, convert: bool) -> tuple[Path, bool]:
    """(the checkpoint to load, whether it is a universal one) for that many workers.

    Shards of another number of workers are rewritten once as a universal checkpoint (Lian et al. 2024). convert:
    whether this worker does it; the others of its machine must wait until it has. Stage 0 shards nothing.
    """
    if state_of(folder)["workers"] == workers or stage == 0:
        return folder, False
    target = folder.with_name(f"{folder.name}-{UNIVERSAL}")
    if convert and not target.exists():
        partial = folder.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        with disk_space(folder):
            _rewrite(folder / TAG, partial / TAG)
        partial.rename(target)
    return target, True


def _rewrite(shards: Path, universal: Path) -> None:
    from deepspeed.checkpoint import ds_to_universal

    # Its command line's settings. In this process: a new one would import DeepSpeed for ten seconds.
    said = {"inject_missing_state": True, "keep_temp_folder": False, "strict": True}
    workers = {"num_extract_workers": 1, "num_merge_workers": 1}
    folders = {"input_folder": str(shards), "output_folder": str(universal)}
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        ds_to_universal.main(Namespace(**said, **workers, **folders))


def load(engine: Any, optimizer: torch.optim.Optimizer, folder: Path) -> dict[str, Any]:
    """Load what `save` wrote, or what `for_workers` made of it; its `more`."""
    found, more = engine.load_checkpoint(str(folder), tag=TAG, load_module_strict=not _frozen(engine.module))
    if found is None:
        raise RunError(f"{folder}: the checkpoint could not be loaded")
    # A universal checkpoint of stage 3 gives all groups one tensor, which each of them would then count up.
    for of_group in optimizer.state.values():
        if isinstance(of_group.get("step"), torch.Tensor):
            of_group["step"] = of_group["step"].clone()
    return dict(more)


def trainable(module: nn.Module, stage: int, rank: int) -> dict[str, torch.Tensor]:
    """What was trained, whole, as fp32 on the CPU of rank 0; empty elsewhere. At stage 3 all workers must call it."""
    made: dict[str, torch.Tensor] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        if stage == 3:
            import deepspeed

            with deepspeed.zero.GatheredParameters([parameter]):
                if rank == 0:
                    made[name] = parameter.detach().to("cpu", torch.float32, copy=True)
        elif rank == 0:
            made[name] = parameter.detach().to("cpu", torch.float32, copy=True)
    return made


def save_weights(weights: dict[str, torch.Tensor], folder: Path, state: dict[str, Any]) -> None:
    """Keep the best weights and what was measured of them; the folder is whole or not there.

    One of the same name, of before a crash, is replaced.
    """
    from safetensors.torch import save_file

    partial = folder.with_name(f".{folder.name}.partial")
    with disk_space(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file({name: value.contiguous() for name, value in weights.items()}, partial / WEIGHTS)
        (partial / STATE).write_text(json.dumps(state), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)


def load_weights(module: nn.Module, folder: Path) -> None:
    """Put kept weights into a network of the same recipe."""
    from safetensors.torch import load_file

    weights = load_file(folder / WEIGHTS)
    missing = {name for name, p in module.named_parameters() if p.requires_grad} - weights.keys()
    assert not missing, "kept weights hold every trained parameter"
    unexpected = cast(Any, module.load_state_dict(weights, strict=False)).unexpected_keys
    assert not unexpected, "kept weights are of the same network"


def _frozen(module: nn.Module) -> bool:
    return any(not parameter.requires_grad for parameter in module.parameters())
