"""explain: whether a label rests on the words that `explain: true` names.

Faithfulness as in ERASER (DeYoung et al., ACL 2020), over the weightiest tenth, fifth and half of a text's pieces, at
least one: comprehensiveness is what the label's probability loses without them (more is better), sufficiency what it
loses with nothing else (less is better). `occlusion` ranks pieces by what that probability loses without each alone;
`random` is the mean of three orders.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bizllm.methods import attribution
from bizllm.methods.attribution import Weighed
from bizllm.methods.few_shot import FewShot
from bizllm.models import batches
from bizllm.models.classifier import Classifier
from bizllm.models.engines.base import all_outputs
from bizllm.models.load import BUILTIN, ModelLoader
from bizllm.models.saved import HEAD, ModelInfo, write_info
from bizllm.tasks import _labels
from bizllm.tasks._labels import Examples, FewShotLabels, FineTunedLabels, Labeller
from measured import Line
from measured.classify import ENCODER, MODELS, Texts, drawn

Array = npt.NDArray[np.float64]

SHARES = (0.1, 0.2, 0.5)
EACH, EACH_ZH = 10, 500  # known texts of a label
ASKED, ASKED_GRADIENTS = 200, 60
ORDERS = 3
REMARKS = """Nothing was chosen with a test part in view: neither the steps of the integral nor the pieces, nor what is
compared. Where a model reads vectors alone, ours is occlusion, too, of the log-odds instead of the probability. A text
with words erased is unlike those that a model learned from; this holds for all three orders."""


class Faith(NamedTuple):
    """Means over texts."""

    comprehensiveness: float
    sufficiency: float


def lines(data: Path) -> list[Line]:
    """Few-shot models in English and Chinese, and a head on the built-in encoder by integrated gradients."""
    known, asked = (Texts.read(data / f"banking77/{part}.parquet", "intent") for part in ("train", "test"))
    ten, some = _of(known, drawn(known.labels, EACH, 0)), _some(asked.texts, ASKED)
    encoder = MODELS.encoder(ENCODER)
    found = measured("banking77, 10 a label", few_shot(ten, encoder), some)
    found += measured("banking77, 10 a label, n-grams alone", few_shot(ten, None), some)
    with tempfile.TemporaryDirectory() as folder:
        tuned = headed(ten, encoder, Path(folder))
        found += measured("banking77, 10 a label, a head by gradients", tuned, some[:ASKED_GRADIENTS])
    rows = pq.read_table(data / "online_shopping_zh/all.parquet").drop_null()
    order = np.random.default_rng(0).permutation(rows.num_rows)
    half = len(order) // 2
    reviews = rows.take(pa.array(order[:half]))
    chinese = Texts(reviews["text"].to_pylist(), reviews["label"].to_pylist())
    few = _of(chinese, drawn(chinese.labels, EACH_ZH, 0))
    unseen = rows["text"].take(pa.array(order[half:])).to_pylist()
    return found + measured("online_shopping_zh, 500 a label, n-grams", few_shot(few, None), _some(unseen, ASKED))


def few_shot(known: Texts, encoder: Any) -> FewShotLabels:
    """As `classify` learns."""
    table = pa.table({"text": known.texts, "label": known.labels})
    examples = Examples(input="known", text="text", label="label")
    return FewShotLabels(FewShot.of(_labels.learn(table, examples, {}, encoder, 200_000)), encoder)


def headed(known: Texts, encoder: Any, folder: Path) -> FineTunedLabels:
    """A model as a training of the head alone leaves it: logistic regression on the encoder's pooled vectors."""
    from safetensors.numpy import save_file
    from sklearn.linear_model import LogisticRegression

    windows = batches.text_windows(encoder.tokenizer, known.texts, encoder.max_tokens)
    pooled = np.stack(all_outputs(encoder.engine, windows))
    assert len(pooled) == len(known.texts), "a window a text"
    fitted = LogisticRegression(C=10.0, max_iter=2_000).fit(pooled, known.labels)
    package, inside = BUILTIN[ENCODER.partition(":")[2]]
    shutil.copytree(Path(__import__(package).__file__ or "").parent / inside, folder, dirs_exist_ok=True)
    head = {"weight": fitted.coef_.astype(np.float32), "bias": fitted.intercept_.astype(np.float32)}
    save_file(head, folder / HEAD)
    labels = tuple(map(str, fitted.classes_))
    write_info(folder, ModelInfo("head", "classification", labels, "mean", encoder.max_tokens))
    loaded: Classifier = ModelLoader().classifier(f"path:{folder}")
    return FineTunedLabels(loaded)


def measured(data: str, labeller: Labeller, texts: list[str]) -> list[Line]:
    """Comprehensiveness and sufficiency, ours beside occlusion and random orders, with what a row costs."""
    began = time.perf_counter()
    likely, _ = labeller.probabilities([texts])
    plain = (time.perf_counter() - began) / len(texts)
    began = time.perf_counter()
    weighed, _ = labeller.weighed(texts, likely)
    cost = (time.perf_counter() - began) / len(texts)
    label, probability = likely.argmax(axis=1), likely.max(axis=1)

    def left(erased: Sequence[tuple[int, str]]) -> Array:
        """What each label's probability loses in another text of the same row."""
        said, _ = labeller.probabilities([[text for _, text in erased]])
        at = np.array([i for i, _ in erased])
        return np.asarray(probability[at] - said[np.arange(len(at)), label[at]], np.float64)

    one_less = [
        (i, _kept(text, w, [*range(k), *range(k + 1, len(w.spans))]))
        for i, (text, w) in _each(texts, weighed)
        for k in range(len(w.spans))
    ]
    losses = np.split(left(one_less), np.cumsum([len(w.spans) for w in weighed])[:-1])
    ours = faith([w.weights for w in weighed], texts, weighed, left)
    occlusion = faith(losses, texts, weighed, left)
    rng = np.random.default_rng(0)
    orders = [faith([rng.random(len(w.spans)) for w in weighed], texts, weighed, left) for _ in range(ORDERS)]
    note = f"{len(texts)} texts; {1000 * plain:.1f} ms a row without, {1000 * (plain + cost):.1f} ms with"
    found = []
    for k, metric in enumerate(Faith._fields):
        by_chance = float(np.mean([order[k] for order in orders]))
        said = f"random {by_chance:.3f}; {note}"
        found.append(
            Line("explain", data, metric, ours[k], occlusion[k], "occlusion", note=said, less_is_better=k == 1)
        )
        print(found[-1], flush=True)
    return found


def faith(scores: Sequence[Array], texts: list[str], weighed: list[Weighed], left: Any) -> Faith:
    """Of the pieces ranked by their scores."""
    without, alone = [], []
    for i, (text, of) in _each(texts, weighed):
        order = np.argsort(-scores[i], kind="stable").tolist()
        for share in SHARES:
            top = max(1, round(share * len(order)))
            without.append((i, _kept(text, of, order[top:])))
            alone.append((i, _kept(text, of, order[:top])))
    return Faith(float(left(without).mean()), float(left(alone).mean()))


def _each(texts: list[str], weighed: list[Weighed]) -> list[tuple[int, tuple[str, Weighed]]]:
    return list(enumerate(zip(texts, weighed, strict=True)))


def _kept(text: str, weighed: Weighed, pieces: Sequence[int]) -> str:
    """The text without its other pieces, and without what lies after the last character that was weighed."""
    gone = np.zeros(len(text), bool)
    gone[attribution.LONGEST :] = True
    for k in set(range(len(weighed.spans))) - set(pieces):
        start, end = weighed.spans[k]
        gone[start:end] = True
    return "".join(character for character, out in zip(text, gone.tolist(), strict=True) if not out)


def _of(known: Texts, at: Sequence[int]) -> Texts:
    return Texts([known.texts[i] for i in at], [known.labels[i] for i in at])


def _some(texts: Sequence[str], most: int) -> list[str]:
    usable = [text for text in texts if text and len(text.split()) and len(text) > 10]
    return [usable[i] for i in sorted(np.random.default_rng(0).permutation(len(usable))[:most])]
