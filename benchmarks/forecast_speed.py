"""Speed of `task: forecast`: beside statsforecast at equal work, and a whole night over many short series.

    BIZLLM_DATA=… python benchmarks/forecast_speed.py [--series 100] [--rounds 3] [--night 2000] [--kinds monthly daily]

Equal work: those members of bizllm's pool that statsforecast has too (Theta, exponential smoothing), estimated as often
on the same parts of the same M3 series by its own API: `cross_validation` over as many windows as bizllm's backtest has
origins, estimated anew in the middle, and `forecast` from the end, with n_jobs=1. bizllm does more in its time: the
members that the library has not, the combination, the quantiles. Origins are a fixed step apart in the library, which
moves some by a period. Windows are cut from the history and the first values of the test part, so that the last origin
is the period before the end, as in bizllm; no estimation sees a test value. Rounds are interleaved; figures are medians
of CPU seconds of one process, BLAS and OpenMP on one thread. `--night 100000` is the full night. Writes
results/forecast_speed.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from bizllm.evaluate import metrics
from bizllm.evaluate.backtest import rolling_origins
from bizllm.methods.forecasters import FIT_SEASONS, Request, forecast_many

RESULTS = Path(__file__).parent / "results"
LEVELS = (0.1, 0.5, 0.9)
SETS = {"MONTHLY": (12, 18), "QUARTERLY": (4, 8), "YEARLY": (1, 6)}  # season, horizon
BAR = 0.9
NIGHT = date(2026, 6, 30)


@dataclass(frozen=True)
class Series:
    """train: (periods,), test: (horizon,)."""

    train: np.ndarray
    test: np.ndarray


Answers = dict[int, np.ndarray]  # place in the sample: (horizon,) means


def load(data: Path, period: str, most: int) -> list[Series]:
    """A sample of M3's series of one period, spread evenly over the file."""
    table = pq.read_table(data / "m3" / "series.parquet")
    table = table.filter(pc.equal(pc.utf8_upper(table["period"]), period))
    pairs = zip(table["train"].to_pylist(), table["test"].to_pylist(), strict=True)
    found = [Series(np.array(train, np.float64), np.array(test, np.float64)) for train, test in pairs]
    return [found[i] for i in np.linspace(0, len(found) - 1, min(most, len(found))).astype(int)]


def ours(sample: list[Series], season: int, horizon: int) -> Answers:
    """The whole of what a night computes for each series."""
    request = Request(season, horizon, LEVELS)
    floors = [bool(one.train.min() >= 0) for one in sample]
    made = forecast_many([one.train for one in sample], [request] * len(sample), floors, [None] * len(sample))
    return {i: one.mean for i, one in enumerate(made) if one is not None}


def pool_of(season: int) -> list[Any]:
    """The members of bizllm's pool for regular series that statsforecast has."""
    from statsforecast.models import AutoETS, AutoTheta

    found: list[Any] = [AutoTheta(season_length=season, model="DOTM", alias="theta")]
    if season < 7:
        found.append(AutoTheta(season_length=season, model="STM", alias="theta_standard"))
    found.append(AutoETS(season_length=season, damped=True if season >= 7 else None, alias="ets"))
    return found


def theirs(sample: list[Series], season: int, horizon: int) -> Answers:
    """The same members at the same origins by statsforecast, series of one length in one call; means of the members."""
    from statsforecast import StatsForecast

    lengths: dict[int, list[int]] = defaultdict(list)
    for i, one in enumerate(sample):
        lengths[len(one.train)].append(i)
    found: Answers = {}
    for length, places in lengths.items():
        kept = min(length, FIT_SEASONS[season] * season)
        origins, _ = rolling_origins(kept, horizon, season if length >= 2 * season else 1)
        fitter = StatsForecast(models=pool_of(season), freq=1, n_jobs=1, fallback_model=_naive())
        if origins:
            step = max(round((origins[-1] - origins[0]) / max(len(origins) - 1, 1)), 1)
            windows = _frame(
                {i: np.concatenate([sample[i].train, sample[i].test[:-1]])[-kept - horizon + 1 :] for i in places}
            )
            fitter.cross_validation(
                df=windows, h=horizon, n_windows=len(origins), step_size=step, refit=(len(origins) + 1) // 2
            )
        found |= _means(fitter.forecast(df=_frame({i: sample[i].train[-kept:] for i in places}), h=horizon), horizon)
    return found


def auto_ets(sample: list[Series], season: int, horizon: int) -> Answers:
    """AutoETS once for each series, without any backtest."""
    from statsforecast import StatsForecast
    from statsforecast.models import AutoETS

    fitter = StatsForecast(models=[AutoETS(season_length=season)], freq=1, n_jobs=1, fallback_model=_naive())
    return _means(fitter.forecast(df=_frame({i: one.train for i, one in enumerate(sample)}), h=horizon), horizon)


def _naive() -> Any:
    from statsforecast.models import Naive

    return Naive()


def _frame(histories: dict[int, np.ndarray]) -> pd.DataFrame:
    sizes = [len(y) for y in histories.values()]
    times = np.concatenate([np.arange(size) for size in sizes])
    return pd.DataFrame(
        {"unique_id": np.repeat(list(histories), sizes), "ds": times, "y": np.concatenate(list(histories.values()))}
    )


def _means(made: pd.DataFrame, horizon: int) -> Answers:
    columns = [name for name in made.columns if name not in ("unique_id", "ds")]
    paths = made[columns].mean(axis=1).to_numpy().reshape(-1, horizon)
    return dict(zip(made["unique_id"].to_numpy()[::horizon].tolist(), paths, strict=True))


WAYS: dict[str, Callable[[list[Series], int, int], Answers]] = {
    "bizllm": ours,
    "statsforecast, equal work": theirs,
    "AutoETS alone, no backtest": auto_ets,
}


def compared(data: Path, period: str, most: int, rounds: int) -> dict[str, Any]:
    """{way: CPU seconds of each round, series per CPU second, sMAPE, MASE} and the ratio to equal work."""
    season, horizon = SETS[period]
    sample = load(data, period, most)
    for way in WAYS.values():  # imports and first calls are no part of it
        way(sample[:2], season, horizon)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    answers: dict[str, Answers] = {}
    for _ in range(rounds):
        for name, way in WAYS.items():
            started = time.process_time()
            answers[name] = way(sample, season, horizon)
            seconds[name].append(time.process_time() - started)
    found: dict[str, Any] = {"series": len(sample), "ways": {}}
    for name, paths in answers.items():
        smapes = [float(metrics.smape(one.test, paths[i])) for i, one in enumerate(sample)]
        mases = [float(metrics.mase(one.test, paths[i], one.train, season)) for i, one in enumerate(sample)]
        found["ways"][name] = {
            "cpu_s": [round(s, 3) for s in seconds[name]],
            "series_per_cpu_s": len(sample) / median(seconds[name]),
            "smape": float(np.mean(smapes)),
            "mase": float(np.nanmean(mases)),
        }
    pace = [way["series_per_cpu_s"] for way in found["ways"].values()]
    return {**found, "times_equal_work": pace[0] / pace[1]}


def start_up() -> dict[str, float]:
    """CPU seconds of a process that makes one forecast, and of one that imports statsforecast."""
    one = "import numpy as np; from bizllm.methods.forecasters import Request, forecast; "
    one += "forecast(np.arange(60) % 12 + 9.0 + np.arange(60) % 7, Request(12, 6, (0.5,)))"
    codes = {"one forecast by bizllm": one, "import statsforecast.models": "import statsforecast.models"}
    last = "; import time; print(time.process_time())"
    return {
        name: median(float(subprocess.check_output([sys.executable, "-c", code + last])) for _ in range(3))
        for name, code in codes.items()
    }


def made_up(many: int, kind: str) -> pa.Table:
    """Short series from one seed: 36 months with season and trend, or 90 days of which three in four sell rarely."""
    rng = np.random.default_rng(0)
    periods = 36 if kind == "monthly" else 90
    place = np.arange(periods)
    if kind == "monthly":
        months = np.datetime64("2026-06") - place[::-1]
        days = months.astype("datetime64[D]")
        level = rng.uniform(20, 200, (many, 1)) * (1 + rng.normal(0, 0.01, (many, 1)) * place)
        rate = level * (1 + 0.3 * np.sin(2 * np.pi * (place / 12 + rng.random((many, 1)))))
    else:
        days = np.datetime64(NIGHT) - place[::-1]
        level = np.where(rng.random((many, 1)) < 0.75, rng.uniform(0.1, 0.6, (many, 1)), rng.uniform(3, 30, (many, 1)))
        rate = level * np.where(place % 7 >= 5, 1.5, 0.8)
    units = rng.poisson(np.maximum(rate, 0.05)).astype(np.int64)
    series, when = np.nonzero(units)  # as a shop's table has them: no row without a sale
    return pa.table({"item": pa.array(series), "day": pa.array(days[when]), "units": pa.array(units[series, when])})


def night(many: int, kind: str) -> dict[str, Any]:
    """Wall seconds of `bizllm run` over so many made-up series, in a process of its own with its own local Ray."""
    with tempfile.TemporaryDirectory() as folder:
        rows = made_up(many, kind)
        pq.write_table(rows, Path(folder) / "sales.parquet", row_group_size=500_000)
        job = {
            "name": "speed",
            "timezone": "UTC",
            "warehouse": {"catalog": "sqlite", "path": "warehouse"},
            "sources": {"sales": {"path": "sales.parquet", "key": ["item", "day"]}},
            "steps": {
                "demand": {
                    "task": "forecast", "input": "sales", "series": ["item"], "time": "day", "target": "units",
                    "freq": "M" if kind == "monthly" else "D", "horizon": 12 if kind == "monthly" else 14,
                }
            },
        }  # fmt: skip
        (Path(folder) / "job.yaml").write_text(json.dumps(job))  # JSON is YAML
        command = [sys.executable, "-m", "bizllm.cli", "run", f"{folder}/job.yaml", "--date", f"{NIGHT}", "--json"]
        load, started = os.getloadavg()[0], time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - started
        assert done.returncode == 0, done.stdout + done.stderr
    step = json.loads(done.stdout)["steps"][0]
    return {
        "series": many,
        "rows": len(rows),
        "load_before": round(load, 1),
        "wall_s": round(wall, 1),
        "step_s": round(step["seconds"], 1),
        "answered": step["rows_out"],
        "series_per_wall_s": round(many / wall, 1),
    }


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    lines = [f"# Speed of forecasts, {report['date']}", "", report["machine"], ""]
    for period, part in report["sets"].items():
        held = "holds" if part["times_equal_work"] >= BAR else "does not hold"
        lines += [
            f"## M3 {period.lower()}, {part['series']} series",
            "",
            "| | series / CPU s | sMAPE | MASE |",
            "| --- | --- | --- | --- |",
        ]
        for name, way in part["ways"].items():
            lines.append(f"| {name} | {way['series_per_cpu_s']:.1f} | {way['smape']:.2f} | {way['mase']:.3f} |")
        ratio = part["times_equal_work"]
        lines += ["", f"bizllm makes {ratio:.1f} times the series of equal work; the bar of {BAR} {held}.", ""]
    lines += ["## Start of a process", ""]
    lines += [f"* {name}: {seconds:.2f} CPU s" for name, seconds in report["start_up"].items()]
    if report["nights"]:
        lines += [
            "",
            "## A whole night, `bizllm run`",
            "",
            f"Made-up series, Ray's start included, all {os.cpu_count()} cores.",
            "",
            "| | series | rows | wall s | the step's s | series / wall s | load before |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
    for kind, ran in report["nights"].items():
        lines.append(
            f"| {kind} | {ran['series']:,} | {ran['rows']:,} | {ran['wall_s']} | {ran['step_s']} "
            f"| {ran['series_per_wall_s']} | {ran['load_before']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, and write JSON and Markdown; exit status 1 where the bar does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=100, help="of each set of M3")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--night", type=int, default=2000, help="series of a night; 0 for none")
    parser.add_argument("--kinds", nargs="+", choices=["monthly", "daily"], default=["monthly", "daily"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    machine += (
        f", numpy {np.__version__}, statsforecast {version('statsforecast')}, load {os.getloadavg()[0]:.1f} before."
    )
    report: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "machine": machine}
    report["nights"] = {kind: night(given.night, kind) for kind in given.kinds} if given.night else {}
    report["start_up"] = start_up()
    data = Path(os.environ["BIZLLM_DATA"])
    with threadpool_limits(1):
        report["sets"] = {period: compared(data, period, given.series, given.rounds) for period in SETS}
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "forecast_speed.json").write_text(json.dumps(report, indent=1) + "\n")
    (given.out / "forecast_speed.md").write_text(markdown(report))
    sys.stdout.write(markdown(report))
    return int(any(part["times_equal_work"] < BAR for part in report["sets"].values()))


if __name__ == "__main__":
    sys.exit(main())
