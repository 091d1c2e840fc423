"""The model card of a fine-tuned model: Markdown with the front matter that model hubs read (Mitchell et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MOST_CLASSES = 100  # rows of the per-class table; the whole one is in the run's result

_PIPELINE = {
    "classification": "text-classification",
    "multi_label": "text-classification",
    "pair": "text-classification",
    "regression": "text-classification",
    "quantile": "text-classification",
    "token_classification": "token-classification",
    "embedding": "sentence-similarity",
    "causal_lm": "text-generation",
    "seq2seq": "text2text-generation",
    "masked_lm": "fill-mask",
}
_AUTO = {
    "token_classification": "AutoModelForTokenClassification",
    "causal_lm": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "masked_lm": "AutoModelForMaskedLM",
}
_DOES = {
    "classification": "Gives a text one of {n} classes.",
    "multi_label": "Gives a text any of {n} labels.",
    "pair": "Gives two texts together one of {n} classes.",
    "regression": "Reads a text and answers with {outputs} number(s).",
    "quantile": "Reads a text and answers with quantiles.",
    "token_classification": "Tags the tokens of a text with {n} tags.",
    "embedding": "Turns a text into a vector; texts of like meaning lie close.",
    "causal_lm": "Writes a text on.",
    "seq2seq": "Turns a text into another.",
    "masked_lm": "Fills masked words; a base for further fine-tuning.",
}
# Bases that are packed with a Python package, by what they are called on the hub.
_HUB = {"builtin:minilm": "sentence-transformers/all-MiniLM-L6-v2"}


def model_card(facts: Mapping[str, Any]) -> str:
    """The card as Markdown. Every fact but `name` and `objective` may be missing; none may hold row text.

    name, objective, labels, pooling, max_tokens, temperature, threshold, levels, horizon, inputs, base, license: as in
        `bizllm.models.saved.ModelInfo` (its `asdict` will do).
    language: code or codes, ISO 639-1. code_version: of bizllm.
    data: {what: value}, such as fingerprint, the rows and the source of each split, overlap.
    training: {setting: value}, such as method, lr, epochs, steps, seconds.
    metrics: {split: {metric: value}}. intervals: {split: {metric: (low, high)}}, of `confidence` (0.95).
    control: {"name": …, "metrics": {metric: value}}: scored on the same test rows.
    per_class: [{"label", "support", "precision", "recall", "f1"}].
    virtual_tokens: how many stand before each text. limits: sentences that this run has to add.
    """
    parts = [
        _front_matter(facts),
        f"# {facts['name']}",
        _what(facts),
        _listed("Data", facts.get("data"), "No row of it is in this card."),
        _listed("Training", _training(facts)),
        _scores(facts),
        _per_class(facts.get("per_class") or ()),
        _limits(facts),
        "## Use\n\nWith plain transformers, in this folder:\n\n```python\n" + snippet(facts) + "```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def snippet(facts: Mapping[str, Any]) -> str:
    """Python that loads the model from the working directory and asks it, without bizllm. Leaves the model's outputs
    in `logits`, or `vectors` of an embedding model, or `written` of a generating one."""
    objective, pooling = str(facts["objective"]), str(facts.get("pooling") or "native")
    window = int(facts.get("max_tokens") or 512)
    pair = objective == "pair" or facts.get("inputs") == "pair"
    texts = '["a text"], ["another"]' if pair else '["a text", "another, longer text"]'
    lines = ["import torch", "from transformers import AutoTokenizer, {auto}", ""]
    lines += ['folder = "."', "tokenizer = AutoTokenizer.from_pretrained(folder)"]
    if objective in ("causal_lm", "seq2seq"):
        lines += ["model = {auto}.from_pretrained(folder).eval()"]
        if facts.get("virtual_tokens"):
            lines.insert(1, "from peft import PeftModel")
            lines += ['model = PeftModel.from_pretrained(model, f"{{folder}}/adapter").eval()']
        lines += ['batch = tokenizer(["a text"], return_tensors="pt")']
        lines += ["with torch.inference_mode():", "    tokens = model.generate(**batch, max_new_tokens=64)"]
        start = ":, batch['input_ids'].shape[1] :" if objective == "causal_lm" else ":"
        lines += [f"written = tokenizer.batch_decode(tokens[{start}], skip_special_tokens=True)"]
        return "\n".join(lines).format(auto=_AUTO[objective]) + "\n"
    if pooling == "last":
        lines += ["tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token"]
    lines += [f'batch = tokenizer({texts}, padding=True, truncation=True, max_length={window}, return_tensors="pt")']
    if pooling == "native":
        lines += ["model = {auto}.from_pretrained(folder).eval()"]
        lines += ["with torch.inference_mode():", "    logits = model(**batch).logits"]
        auto = _AUTO.get(objective, "AutoModelForSequenceClassification")
        return "\n".join([*lines, *_meaning(facts)]).format(auto=auto) + "\n"
    headed = objective != "embedding"
    if headed:
        lines.insert(1, "from safetensors.torch import load_file")
    lines += ["model = {auto}.from_pretrained(folder).eval()"]
    lines += ["with torch.inference_mode():", "    hidden = model(**batch).last_hidden_state  # (rows, tokens, dim)"]
    lines += _pooled(pooling)
    if not headed:
        lines += ["vectors = torch.nn.functional.normalize(pooled, dim=1)"]
    else:
        lines += ['head = load_file(f"{{folder}}/head.safetensors")']
        lines += ['logits = pooled @ head["weight"].T + head["bias"]  # (rows, outputs)', *_meaning(facts)]
    return "\n".join(lines).format(auto="AutoModel") + "\n"


def _pooled(pooling: str) -> list[str]:
    if pooling == "mean":
        return [
            'mask = batch["attention_mask"].unsqueeze(-1)',
            "pooled = (hidden * mask).sum(1) / mask.sum(1)  # (rows, dim)",
        ]
    mask = 'batch["attention_mask"]'
    first = f"{mask}.argmax(1)"
    at = first if pooling == "cls" else f"{mask}.shape[1] - 1 - {mask}.flip(1).argmax(1)"
    return [f"pooled = hidden[torch.arange(len(hidden)), {at}]  # (rows, dim)"]


def _meaning(facts: Mapping[str, Any]) -> list[str]:
    """What the logits are, in lines that follow them."""
    objective = facts["objective"]
    scale = float(facts.get("temperature") or 1.0)
    logits = "logits" if scale == 1.0 else f"(logits / {scale!r})"
    if objective in ("classification", "pair", "token_classification"):
        return [f"probabilities = {logits}.softmax(-1)  # in the order of `labels` in bizllm.json"]
    if objective == "multi_label":
        return [f"probabilities = {logits}.sigmoid()  # in the order of `labels` in bizllm.json"]
    return []


# -- sections -----------------------------------------------------------------------------------------------------


def _front_matter(facts: Mapping[str, Any]) -> str:
    import yaml

    base = str(facts.get("base") or "")
    hub = base.removeprefix("hf:").partition("@")[0] if base.startswith("hf:") else _HUB.get(base)
    metrics = dict.fromkeys(metric for scores in (facts.get("metrics") or {}).values() for metric in scores)
    said = {
        "language": facts.get("language"),
        "license": str(facts.get("license") or "").lower() or None,
        "base_model": hub,
        "library_name": "transformers",
        "pipeline_tag": _PIPELINE.get(str(facts["objective"])),
        "tags": ["bizllm"],
        "metrics": list(metrics),
    }
    filled = {key: value for key, value in said.items() if value}
    return f"---\n{yaml.safe_dump(filled, sort_keys=False, allow_unicode=True)}---"


def _what(facts: Mapping[str, Any]) -> str:
    labels = list(facts.get("labels") or ())
    said = _DOES.get(str(facts["objective"]), "").format(n=len(labels), outputs=facts.get("horizon") or 1)
    text = [f"## What it is\n\n{said}".rstrip()]
    rows: dict[str, Any] = {"objective": facts["objective"], "base": facts.get("base"), "license": facts.get("license")}
    rows["window"] = f"{facts['max_tokens']} tokens" if facts.get("max_tokens") else None
    rows["pooling"] = facts.get("pooling")
    rows["quantile levels"] = ", ".join(str(level) for level in facts.get("levels") or ())
    if labels:
        rows["labels"] = ", ".join(map(str, labels[:MOST_CLASSES])) + (", …" if len(labels) > MOST_CLASSES else "")
    rows["temperature"] = None if facts.get("temperature") in (None, 1.0) else facts["temperature"]
    rows["threshold"] = facts.get("threshold")
    return "\n\n".join([*text, _bullets(rows)])


def _training(facts: Mapping[str, Any]) -> dict[str, Any]:
    version = facts.get("code_version")
    return {**(facts.get("training") or {}), **({"bizllm": version} if version else {})}


def _listed(title: str, said: Mapping[str, Any] | None, note: str = "") -> str:
    bullets = _bullets(said or {})
    return "\n\n".join(part for part in (f"## {title}", bullets, note) if part) if bullets else ""


def _bullets(said: Mapping[str, Any]) -> str:
    lines = []
    for key, value in said.items():
        if value is None or value == "":
            continue
        if isinstance(value, Mapping):
            value = ", ".join(f"{name} {_number(each)}" for name, each in value.items())
        lines.append(f"- {_plain(key).replace('_', ' ')}: {_plain(_number(value))}")
    return "\n".join(lines)


def _scores(facts: Mapping[str, Any]) -> str:
    """A row a metric: validation, test with its interval, and the control on the same test rows."""
    metrics: Mapping[str, Mapping[str, float]] = facts.get("metrics") or {}
    if not metrics:
        return ""
    control = facts.get("control") or {}
    against = control.get("metrics") or {}
    names = list(dict.fromkeys(metric for scores in metrics.values() for metric in scores))
    head = ["metric", *metrics, *([f"control: {control.get('name', 'a simpler model')}"] if against else [])]
    intervals = facts.get("intervals") or {}
    rows = []
    for name in names:
        cells = [_score(scores.get(name), (intervals.get(split) or {}).get(name)) for split, scores in metrics.items()]
        rows.append([name, *cells, *([_score(against.get(name))] if against else [])])
    confidence = float(facts.get("confidence") or 0.95)
    note = f"In brackets the {confidence:.0%} bootstrap interval." if any(intervals.values()) else ""
    if against:
        note = f"{note} The control was trained on the same rows and scored on the same test rows.".strip()
    return "\n\n".join(part for part in ("## Scores", _table(head, rows), note) if part)


def _per_class(classes: Sequence[Mapping[str, Any]]) -> str:
    if not classes:
        return ""
    most = sorted(classes, key=lambda row: -int(row["support"]))[:MOST_CLASSES]
    numbers = ("support", "precision", "recall", "f1")
    rows = [[row["label"], *(_number(row[name]) for name in numbers)] for row in most]
    left = len(classes) - len(most)
    note = f"The {len(most)} classes with the most rows; {left} more are left out." if left else ""
    table = _table(["class", *numbers], rows)
    return "\n\n".join(part for part in ("## Test scores by class", table, note) if part)


def _limits(facts: Mapping[str, Any]) -> str:
    said = ["Scored on rows like those it was trained on; other sources, times and languages may differ."]
    if facts.get("labels") and facts["objective"] != "token_classification":
        said.append("It knows its labels only: what is none of them is given the nearest" + _out_of_scope(facts))
    if facts["objective"] not in ("causal_lm", "seq2seq", "masked_lm"):
        said.append("bizllm reads texts beyond the window in several windows; the code below cuts them off.")
    else:
        said.append("What it writes may be wrong, however fluent.")
    return "## Limits\n\n" + "\n".join(f"- {_plain(line)}" for line in [*said, *(facts.get("limits") or ())])


def _out_of_scope(facts: Mapping[str, Any]) -> str:
    threshold = facts.get("threshold")
    if threshold is None or facts["objective"] == "multi_label":
        return "."
    return f", and called out of scope where its probability is below {_number(threshold)}."


# -- Markdown -----------------------------------------------------------------------------------------------------


def _table(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)


def _score(value: float | None, interval: Sequence[float] | None = None) -> str:
    if value is None:
        return ""
    return _number(value) + (f" [{_number(interval[0])}, {_number(interval[1])}]" if interval else "")


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> str:
    """Text that stays within its cell or line; labels may hold anything."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
