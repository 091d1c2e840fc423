"""Scores of numbers: one or a horizon of them a row, as points or as quantiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bizllm.errors import RunError
from bizllm.evaluate import metrics
from bizllm.evaluate.calibration import Floats


def scores(
    prediction: Floats, truth: Floats, histories: Sequence[npt.ArrayLike] | None = None, season: int = 1
) -> dict[str, float]:
    """Errors of (n, h) predictions: mae and rmse over all numbers; smape and mase as means of the rows' own.

    mase needs each row's `histories`, the values before it; rows whose history has no scale are left out of its mean.
    r2 is the mean over the steps of the horizon; a step at which all rows are the same is left out. A metric that no
    row or step defines is missing. Raises RunError where a prediction is no number.
    """
    _check(prediction)
    assert prediction.shape == truth.shape and prediction.ndim == 2, "(rows, horizon) both"
    error = np.asarray(prediction, np.float64) - truth
    result = {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "smape": float(metrics.smape(truth, prediction).mean()),
    }
    spread = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    varies = spread > 0
    if varies.any():
        result["r2"] = float((1.0 - (error**2).sum(axis=0)[varies] / spread[varies]).mean())
    if histories is not None:
        rows = zip(truth, prediction, histories, strict=True)
        scaled = np.array([metrics.mase(y, f, history, season) for y, f, history in rows])
        if not np.isnan(scaled).all():
            result["mase"] = float(np.nanmean(scaled))
    return result


def quantile_scores(
    quantiles: Floats,
    truth: Floats,
    levels: Sequence[float],
    histories: Sequence[npt.ArrayLike] | None = None,
    season: int = 1,
) -> dict[str, float]:
    """Scores of (n, h, q) quantiles at ascending `levels` in (0, 1).

    pinball is the mean over the levels; coverage the share of the truth inside the outermost levels' band, to be held
    against last − first level; the others are those of the median as a point prediction. coverage needs two levels,
    the median level 0.5. Raises RunError where a quantile is no number.
    """
    _check(quantiles)
    assert quantiles.shape == (*truth.shape, len(levels)), "(rows, horizon, levels)"
    assert list(levels) == sorted(set(levels)), "levels ascend"
    losses = [metrics.pinball(truth, quantiles[..., q], level).mean() for q, level in enumerate(levels)]
    result = {"pinball": float(np.mean(losses))}
    if len(levels) > 1:
        result["coverage"] = float(metrics.coverage(truth, quantiles[..., 0], quantiles[..., -1]).mean())
    if 0.5 in levels:
        result |= scores(quantiles[..., list(levels).index(0.5)], truth, histories, season)
    return result


def _check(prediction: Floats) -> None:
    wrong = int((~np.isfinite(prediction)).reshape(len(prediction), -1).any(axis=1).sum())
    if wrong:
        raise RunError(f"the model gives no number for {wrong} of {len(prediction)} rows (NaN or infinity)")
