"""Numbers: ridge regression on TF-IDF of texts; of histories, the best of naive forecasts and a ridge on lags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.evaluate import metrics
from bizllm.methods import folds
from bizllm.methods.number_text import encode_history
from bizllm.methods.text_features import TextFeatures
from bizllm.models.saved import ModelInfo
from bizllm.train.control import Control, Outputs
from bizllm.train.objectives.regression import values

Array = npt.NDArray[np.float64]
Inputs = Any  # (rows, features), dense or sparse
Predict = Callable[[Inputs], Array]  # → (rows, horizon)

PENALTIES = (0.1, 1.0, 10.0, 100.0)
SEASONS = (1, 2, 4, 5, 7, 12, 13, 24, 26, 52)  # of naive forecasts; 1 repeats the last value
LAGS = 52
FOLDS = 5


@dataclass
class NumberControl(Control):
    """A fitted one. predict_rows: inputs → (rows, horizon) in units of a row's scale. quantiles: (horizon, levels) of
    its errors out of fold, added to the point; none for regression."""

    info: ModelInfo
    features: TextFeatures | None
    predict_rows: Predict
    quantiles: Array | None
    name: str

    def predict(self, rows: pa.Table) -> Outputs:
        """`numbers` as the objective's: (rows, horizon), or (rows, horizon × levels), in units of a row's scale."""
        inputs, scale = _inputs(rows, self.info, self.features)
        points = self.predict_rows(inputs)
        truth = values(rows) / scale[:, None]
        if self.quantiles is None:
            loss = ((points - truth) ** 2).mean(axis=1)
            return {"numbers": points, "loss": loss, "units": np.ones(len(points))}
        spread = points[:, :, None] + self.quantiles  # (rows, horizon, levels)
        losses = [metrics.pinball(truth, spread[..., q], level) for q, level in enumerate(self.info.levels)]
        numbers = spread.reshape(len(points), -1)
        return {"numbers": numbers, "loss": np.mean(losses, axis=0), "units": np.ones(len(points))}


def fit_numbers(rows: pa.Table, info: ModelInfo, seed: int) -> NumberControl:
    """The candidate with the least mean absolute error out of fold, on train alone."""
    text = info.inputs != "numbers"
    features = TextFeatures(rows["text"].to_pylist()) if text else None
    inputs, scale = _inputs(rows, info, features)
    truth = values(rows) / scale[:, None]
    if text:
        held_out = folds.of_texts(rows["text"].to_pylist(), [], np.zeros(len(rows), np.int64), FOLDS, seed)
    else:
        held_out = folds.assign(range(len(rows)), np.zeros(len(rows), np.int64), FOLDS, seed)
    candidates: dict[str, Callable[[Inputs, Array], Predict]] = {
        f"{'TF-IDF' if text else 'lags'} + ridge ({penalty:g})": partial(_ridge, penalty=penalty)
        for penalty in PENALTIES
    }
    if not text:
        shortest = min(len(history) for history in rows["text"].to_pylist())
        for season in SEASONS:
            if season <= shortest:
                name = f"seasonal naive ({season})" if season > 1 else "last value"
                candidates[name] = partial(_naive, season=season)
    errors = {name: truth - _out_of_fold(fit, inputs, truth, held_out) for name, fit in candidates.items()}
    best = min(errors, key=lambda name: float(np.abs(errors[name]).mean()))
    quantiles = np.quantile(errors[best], info.levels, axis=0).T if info.objective == "quantile" else None
    return NumberControl(info, features, candidates[best](inputs, truth), quantiles, best)


def _inputs(rows: pa.Table, info: ModelInfo, features: TextFeatures | None) -> tuple[Inputs, Array]:
    """(rows, features) and what each row's numbers are divided by."""
    if features is not None:
        return features.matrix(rows["text"].to_pylist()), np.ones(len(rows))
    histories = [np.asarray(history, np.float64) for history in rows["text"].to_pylist()]
    scale = np.array([encode_history(history)[1] for history in histories])
    return _lags(histories) / scale[:, None], scale


def _lags(histories: Sequence[Array]) -> Array:
    """(rows, LAGS) the last values, oldest first; a shorter history begins with its first value again and again."""
    recent = [history[-LAGS:] for history in histories]
    return np.array([np.pad(history, (LAGS - len(history), 0), "edge") for history in recent])


def _out_of_fold(
    fit: Callable[[Inputs, Array], Predict], inputs: Inputs, truth: Array, held_out: npt.NDArray[np.int64]
) -> Array:
    predicted = np.zeros(truth.shape)
    for fold in np.unique(held_out):
        asked = held_out == fold
        # One row alone has nobody to learn from but itself.
        known = ~asked if (~asked).any() else asked
        predicted[asked] = fit(inputs[known], truth[known])(inputs[asked])
    return predicted


def _ridge(inputs: Inputs, truth: Array, penalty: float) -> Predict:
    from scipy.sparse import issparse
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=penalty, solver="sparse_cg" if issparse(inputs) else "cholesky", tol=1e-3).fit(inputs, truth)
    return lambda asked: np.asarray(model.predict(asked), np.float64).reshape(asked.shape[0], -1)


def _naive(inputs: Inputs, truth: Array, season: int) -> Predict:
    steps = [LAGS - season + step % season for step in range(truth.shape[1])]
    return lambda asked: np.asarray(asked[:, steps])
