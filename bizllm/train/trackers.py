"""Where the figures of a training go: metrics.jsonl always; TensorBoard, MLflow and Weights & Biases where asked for.

Figures and settings only, never text of rows. A tracker is opened before any work, so that a missing package or a
server that does not answer is the user's to mend; one that fails later is dropped with one warning, since no curve is
worth a training. The driver alone opens them.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from bizllm import logs
from bizllm.errors import Fault, UserError, nearest, safe_text
from bizllm.models.registry import Registry, load_mlflow
from bizllm.models.registry_uri import shown

Split = Literal["train", "validation"]

METRICS_FILE = "metrics.jsonl"
FINISH_S = 60.0  # for what a slow server has not taken yet

_PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
_USER_PART = re.compile(r"(?<=://)[^/@\s]*@")  # of a URL: may hold a password
_log = logs.get(__name__)


class Tracker(Protocol):
    """Takes a training's figures as they come."""

    def log(self, step: int, values: Mapping[str, float], split: Split = "train") -> None:
        """Figures of an optimizer step; those of `validation` were measured after it."""

    def finish(self, summary: Mapping[str, float] | None) -> None:
        """The last figures, such as `test/macro_f1`; None where the training ended without a result."""


class Trackers:
    """Several trackers as one, of which none can end a training.

    where: for each tracker by name, where its figures are: a path; for mlflow the id of its run.
    """

    def __init__(self, opened: Mapping[str, Tracker], where: Mapping[str, str]) -> None:
        self._opened = dict(opened)
        self.where = dict(where)

    def log(self, step: int, values: Mapping[str, float], split: Split = "train") -> None:
        self._each(lambda tracker: tracker.log(step, values, split))

    def finish(self, summary: Mapping[str, float] | None) -> None:
        self._each(lambda tracker: tracker.finish(summary))
        self._opened.clear()

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._opened.items()):
            try:
                act(tracker)
            except Exception as fault:
                del self._opened[name]
                _log.warning("tracker_dropped", tracker=name, reason=safe_text(fault))


def open_trackers(
    names: Sequence[str],
    run_folder: Path,
    run_name: str,
    params: Mapping[str, Any],
    tracking_uri: str,
    *,
    resumed_step: int = 0,
) -> Trackers:
    """metrics.jsonl and the named ones. Raises UserError for each that can't be opened.

    run_folder: `<output>/<name>/<run_id>`; the name groups runs (MLflow's experiment, W&B's project).
    params: the recipe, nested as it is. tracking_uri: MLflow's, as the registry has it.
    resumed_step: the training goes on after this step; what was logged beyond it is dropped. 0: a new one.
    """
    faults = [
        Fault("track", name, f"expected one of {', '.join(_PACKAGES)}", nearest(name, _PACKAGES))
        if name not in _PACKAGES
        else Fault("track", name, f"package '{_PACKAGES[name]}' is not installed", "pip install 'bizllm[train]'")
        for name in names
        if name not in _PACKAGES or importlib.util.find_spec(_PACKAGES[name]) is None
    ]
    if faults:
        raise UserError(*faults)
    settings = dict(flat_params(params))
    openers: dict[str, Callable[[], tuple[Tracker, str]]] = {
        "tensorboard": lambda: _tensorboard(run_folder, resumed_step),
        "mlflow": lambda: _mlflow(run_folder, run_name, settings, tracking_uri),
        "wandb": lambda: _wandb(run_folder, run_name, settings),
    }
    file = run_folder / METRICS_FILE
    opened: dict[str, Tracker] = {"jsonl": JsonlTracker(file, resumed_step)}
    where = {"jsonl": str(file)}
    for name in dict.fromkeys(names):
        try:
            opened[name], where[name] = openers[name]()
        except Exception as fault:
            Trackers(opened, where).finish(None)
            if isinstance(fault, UserError):
                raise
            hint = {
                "mlflow": f"can {shown(tracking_uri)} be written?",
                "wandb": "WANDB_MODE=offline needs no network",
            }
            reason = f"can't be opened ({safe_text(fault)})"
            raise UserError(Fault("track", name, reason, hint.get(name, ""))) from fault
    return Trackers(opened, where)


def flat_params(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as `optim.lr`: `0.0001`; without the user's part of URLs, which may hold a password."""
    for name, value in values.items():
        place = f"{above}{name}"
        if isinstance(value, Mapping):
            yield from flat_params(value, f"{place}.")
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            yield place, _USER_PART.sub("", text)[:500]


class JsonlTracker:
    """One JSON object a line; what is no finite number is null."""

    def __init__(self, file: Path, resumed_step: int) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = "".join(_lines_up_to(file, resumed_step))
        aside = file.with_suffix(".aside")
        aside.write_text(kept, "utf-8")
        aside.replace(file)
        self._file = file.open("a", encoding="utf-8")

    def log(self, step: int, values: Mapping[str, float], split: Split = "train") -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, "split": split, **finite}) + "\n")
        self._file.flush()

    def finish(self, summary: Mapping[str, float] | None) -> None:
        self._file.close()  # the last figures stand in result.json


def _lines_up_to(file: Path, step: int) -> Iterator[str]:
    """Whole lines of steps up to this one; a line that a kill cut short is left out."""
    if not file.is_file() or step == 0:
        return
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                if json.loads(line)["step"] <= step:
                    yield line
            except (ValueError, KeyError, TypeError):
                continue


class TensorBoardTracker:
    """Event files; TensorBoard itself drops what an earlier attempt wrote beyond the resumed step."""

    def __init__(self, folder: Path, resumed_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=resumed_step + 1 if resumed_step else None)
        self._step = resumed_step

    def log(self, step: int, values: Mapping[str, float], split: Split = "train") -> None:
        self._step = step
        for name, value in values.items():
            self._writer.add_scalar(f"{split}/{name}", value, step)

    def finish(self, summary: Mapping[str, float] | None) -> None:
        for name, value in (summary or {}).items():
            self._writer.add_scalar(name, value, self._step)
        self._writer.close()


def _tensorboard(run_folder: Path, resumed_step: int) -> tuple[Tracker, str]:
    folder = run_folder / "tensorboard"
    return TensorBoardTracker(folder, resumed_step), str(folder)


class MlflowTracker:
    """A run of MLflow, fed by a thread, so that a slow server never holds up a step.

    MLflow keeps every value that it was ever given, so that steps which it has from before a resume are left out.
    """

    def __init__(self, client: Any, run_id: str, logged: Mapping[str, int]) -> None:
        """logged: the last step that MLflow has, by split."""
        self._client, self._run_id = client, run_id
        self._logged, self._step = logged, max(logged.values(), default=0)
        self._waiting: queue.SimpleQueue[tuple[int, int, dict[str, float]] | None] = queue.SimpleQueue()
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._feed, name="mlflow", daemon=True)
        self._thread.start()

    def log(self, step: int, values: Mapping[str, float], split: Split = "train") -> None:
        self._check()
        if step > self._logged.get(split, 0):
            self._put(step, {f"{split}/{name}": value for name, value in values.items()})

    def finish(self, summary: Mapping[str, float] | None) -> None:
        self._put(self._step, dict(summary or {}))
        self._waiting.put(None)
        self._thread.join(FINISH_S)
        self._check()
        if self._thread.is_alive():
            raise TimeoutError("the tracking server took too long")
        self._client.set_terminated(self._run_id, "FAILED" if summary is None else "FINISHED")

    def _put(self, step: int, values: dict[str, float]) -> None:
        self._step = step
        self._waiting.put((step, time.time_ns() // 1_000_000, values))

    def _check(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _feed(self) -> None:
        from mlflow.entities import Metric

        while (item := self._waiting.get()) is not None:
            step, now_ms, values = item
            try:
                metrics = [Metric(_mlflow_name(name), value, now_ms, step) for name, value in values.items()]
                self._client.log_batch(self._run_id, metrics=metrics)
            except Exception as fault:
                self._fault = fault
                return


def _mlflow_name(name: str) -> str:
    return re.sub(r"[^\w\-. /]", "_", name)


def _mlflow(run_folder: Path, run_name: str, settings: Mapping[str, str], tracking_uri: str) -> tuple[Tracker, str]:
    load_mlflow()
    from mlflow import MlflowClient
    from mlflow.entities import Param

    experiment = Registry(tracking_uri).experiment(run_folder.parent.name)
    client = MlflowClient(tracking_uri)
    tag = "bizllm.run"
    found = client.search_runs([experiment], f"tags.`{tag}` = '{run_folder.name}'", max_results=1)
    if found:  # resumed
        run_id = found[0].info.run_id
        client.update_run(run_id, "RUNNING")
        logged: dict[str, int] = {}
        for name in found[0].data.metrics:
            last = max(point.step for point in client.get_metric_history(run_id, name))
            split = name.partition("/")[0]
            logged[split] = max(last, logged.get(split, 0))
        return MlflowTracker(client, run_id, logged), run_id
    run_id = client.create_run(experiment, run_name=run_name, tags={tag: run_folder.name}).info.run_id
    params = [Param(_mlflow_name(name), value) for name, value in settings.items()]
    for start in range(0, len(params), 100):  # MLflow takes no more at once
        client.log_batch(run_id, params=params[start : start + 100])
    return MlflowTracker(client, run_id, {}), run_id


class WandbTracker:
    """A run of Weights & Biases."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, values: Mapping[str, float], split: Split = "train") -> None:
        self._run.log({f"{split}/{name}": value for name, value in values.items()}, step=step)

    def finish(self, summary: Mapping[str, float] | None) -> None:
        self._run.summary.update(dict(summary or {}))
        self._run.finish(exit_code=1 if summary is None else 0)


def _wandb(run_folder: Path, run_name: str, settings: Mapping[str, str]) -> tuple[Tracker, str]:
    mode: Any = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its own crash reports, which no mode turns off
    import wandb

    run = wandb.init(
        project=run_folder.parent.name,
        name=run_name,
        id=run_folder.name,
        dir=str(run_folder),
        mode=mode,
        config=dict(settings),
        resume="allow",
        reinit="create_new",
        # Nothing but our figures: no command line, code, packages, console output or state of the machine.
        settings=wandb.Settings(
            silent=True,
            console="off",
            disable_code=True,
            disable_git=True,
            x_disable_meta=True,
            x_save_requirements=False,
            x_disable_stats=True,
            init_timeout=FINISH_S,
            finish_timeout=FINISH_S,
        ),
    )
    return WandbTracker(run), str(run_folder / "wandb")
