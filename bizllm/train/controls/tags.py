"""Tags by an averaged structured perceptron on words, their affixes, shapes and neighbours (Collins 2002)."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.models.saved import ModelInfo
from bizllm.train.control import Control, Outputs, unscored

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

BUCKETS = 2**18  # features are hashed: 2 MB a tag
PASSES = 5
MAX_TOKENS = 200_000  # of train, in whole rows: about 30 s a pass with 20 tags

_UPPER, _LOWER, _DIGIT = re.compile("[A-Z]+"), re.compile("[a-z]+"), re.compile("[0-9]+")


@dataclass
class TagControl(Control):
    """A fitted one. weights: (BUCKETS, tags) of features. moves: (tags, tags) from the tag before."""

    info: ModelInfo
    weights: Array
    moves: Array
    name: str = "averaged perceptron"

    def predict(self, rows: pa.Table) -> Outputs:
        """`tags` as the objective's: for each row the positions of its tags in `info.labels`."""
        tags = np.empty(len(rows), object)
        tags[:] = [
            _best(self.weights[features(words)].sum(axis=1), self.moves).tolist() if words else []
            for words in rows["text"].to_pylist()
        ]
        return {"tags": tags, **unscored(len(rows))}


def fit_tags(rows: pa.Table, info: ModelInfo, seed: int) -> TagControl:
    """PASSES over at most MAX_TOKENS; weights are the mean over all steps, which stands for a large margin."""
    place = {label: i for i, label in enumerate(info.labels)}
    order = list(range(len(rows)))
    rng = random.Random(seed)
    rng.shuffle(order)
    known: list[tuple[Indices, Indices]] = []
    tokens = 0
    texts, labels = rows["text"].to_pylist(), rows["label"].to_pylist()
    for row in order:
        if texts[row] and tokens < MAX_TOKENS:
            known.append((features(texts[row]), np.array([place[tag] for tag in labels[row]], dtype=np.int64)))
            tokens += len(texts[row])
    weights, moves = np.zeros((BUCKETS, len(place))), np.zeros((len(place), len(place)))
    # Sums of each change times the step it was made at: their share of all steps is what the mean lacks.
    late_weights, late_moves = np.zeros_like(weights), np.zeros_like(moves)
    step = 0
    for _ in range(PASSES):
        rng.shuffle(known)
        for found, truth in known:
            guess = _best(weights[found].sum(axis=1), moves)
            for at in np.flatnonzero(guess != truth):
                for tag, change in ((truth[at], 1.0), (guess[at], -1.0)):
                    np.add.at(weights, (found[at], tag), change)
                    np.add.at(late_weights, (found[at], tag), change * step)
            for path, change in ((truth, 1.0), (guess, -1.0)):
                np.add.at(moves, (path[:-1], path[1:]), change)
                np.add.at(late_moves, (path[:-1], path[1:]), change * step)
            step += 1
    return TagControl(info, weights - late_weights / max(1, step), moves - late_moves / max(1, step))


def features(words: Sequence[str]) -> Indices:
    """(words, features) buckets of each word's features."""
    around = ["<2", "<1", *words, ">1", ">2"]
    made = []
    for at, word in enumerate(words, start=2):
        low = word.lower()
        shape = _DIGIT.sub("0", _LOWER.sub("a", _UPPER.sub("A", word)))
        names = [
            f"w{low}",
            f"-1{around[at - 1].lower()}",
            f"+1{around[at + 1].lower()}",
            f"-2{around[at - 2].lower()}",
            f"+2{around[at + 2].lower()}",
            f"-1w{around[at - 1].lower()}|{low}",
            f"w+1{low}|{around[at + 1].lower()}",
            f"-1+1{around[at - 1].lower()}|{around[at + 1].lower()}",
            f"p2{low[:2]}",
            f"p3{low[:3]}",
            f"s2{low[-2:]}",
            f"s3{low[-3:]}",
            f"h{shape}",
            "bias",
        ]
        made.append([zlib.crc32(name.encode("utf-8", "surrogatepass")) % BUCKETS for name in names])
    return np.array(made, dtype=np.int64)


def _best(scores: Array, moves: Array) -> Indices:
    """The path of tags with the highest sum of scores (words, tags) and moves (Viterbi 1967)."""
    total = scores[0]
    back = np.zeros(scores.shape, dtype=np.int64)
    for at in range(1, len(scores)):
        reached = total[:, None] + moves  # (before, after)
        back[at] = reached.argmax(axis=0)
        total = reached.max(axis=0) + scores[at]
    path = np.empty(len(scores), dtype=np.int64)
    path[-1] = total.argmax()
    for at in range(len(scores) - 1, 0, -1):
        path[at - 1] = back[at, path[at]]
    return path
