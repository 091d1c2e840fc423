"""Which metrics an objective has, and which way each is better."""

from __future__ import annotations

_CLASSES = {
    "macro_f1": True,
    "accuracy": True,
    "weighted_f1": True,
    "mcc": True,
    "roc_auc": True,
    "log_loss": False,
    "ece": False,
    "loss": False,
}
_POINTS = {"mae": False, "rmse": False, "smape": False, "mase": False, "r2": True, "loss": False}

# objective → metric → whether higher is better; the first metric is the objective's own. `coverage` of quantiles is not
# among them: it is best at the band's nominal share, neither high nor low.
METRICS: dict[str, dict[str, bool]] = {
    "classification": _CLASSES,
    "multi_label": {
        "micro_f1": True,
        "macro_f1": True,
        "subset_accuracy": True,
        "hamming_loss": False,
        "roc_auc": True,
        "loss": False,
    },
    "pair": _CLASSES,
    "regression": _POINTS,
    "quantile": {"pinball": False, **_POINTS},
    "token_classification": {"f1": True, "precision": True, "recall": True, "macro_f1": True, "loss": False},
    "embedding": {"recall_at_1": True, "recall_at_10": True, "mrr": True, "loss": False},
    "causal_lm": {"perplexity": False, "loss": False, "token_accuracy": True},
    "seq2seq": {"rougeL": True, "rouge1": True, "rouge2": True, "exact_match": True, "loss": False},
    "masked_lm": {"loss": False, "perplexity": False},
}


def default_metric(objective: str) -> str:
    """The metric that stops, selects and promotes where the user names none."""
    return next(iter(METRICS[objective]))
