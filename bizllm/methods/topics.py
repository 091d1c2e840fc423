"""Topics of texts that stay the same topics from night to night: found, named, matched, and kept as JSON.

Texts are points: an encoder's vectors, or their terms by latent semantic analysis (Deerwester et al. 1990) where there
is none. Topics are the clusters of `bizllm.methods.clusters`, begun where last night's ended.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bizllm.evaluate import calibration
from bizllm.methods import clusters, documents
from bizllm.methods.clusters import Indices, Matrix
from bizllm.methods.sentences import is_cjk
from bizllm.methods.topic_terms import telling, terms

FORMAT = 1
SAMPLE = 20_000  # texts that topics are learned of: those with the smallest hashes
WORDS = 10  # that are told of a topic
IN_NAME = 3
LEAST = 5  # texts a topic has on average where `auto` chooses their number
ENOUGH, MARGIN = 0.9, 0.05  # of the silhouette: what fewer topics may lose; what others must gain
SHARPNESS = 20.0  # of likeness, before the temperature
DIM, TERMS = 100, 5_000  # of latent semantic analysis
FAMILIAR = 0.9  # share of last night's coverage from which its terms are kept
NEW_SHARE, NEW_LEAST = 0.005, 10  # of the texts, close together and far from every topic, that begin a new one
_MOST_FAR = 2_000  # such texts that are compared with each other


@dataclass(frozen=True)
class Found:
    """For each text its topic: (texts,) position in the fit's topics, -1 for none; of the nearest one the probability,
    and the distance to its centre."""

    topic: Indices
    probability: npt.NDArray[np.float64]
    distance: npt.NDArray[np.float64]


def fit(
    texts: Sequence[str],
    vectors: Matrix | None,
    k: int | tuple[int, int],
    outliers: float,
    min_texts: int,
    previous: dict[str, Any] | None,
) -> dict[str, Any]:
    """Find topics, continuing last night's.

    vectors: (texts, dim) of length 1, of an encoder. k: the number of topics, or fewest and most. outliers: share of a
    first night's texts, the furthest from every topic, that belong to none; that radius then stays. Nor do texts
    without a term that is known. A topic that has
    more than half of its texts from one of last night's keeps its id, and its name while two of its words are still
    among the ten most telling. Ids are never given again. With fewer than `min_texts` texts last night's topics stay;
    on a first night all is then one topic.
    """
    last = previous if previous is not None and previous["format"] == FORMAT else None
    if last is not None and len(texts) < min_texts:
        return last
    kept = documents.sample(np.zeros(len(texts), np.int64), texts, SAMPLE)
    kept = kept[np.argsort(np.array(texts, object)[kept], kind="stable")]  # the same, whatever the order of the rows
    texts = [texts[i] for i in kept]
    said = [terms(text) for text in texts]
    given = None if vectors is None else vectors[kept]
    space = _space(said, last) if vectors is None else None
    x = _points(said, given, space)
    was = None if last is None else _last_topics(last, said, given)
    begun, ks = None, [1] if len(texts) < min_texts else [k] if isinstance(k, int) else _grid(*k, len(texts))
    if last is not None and was is not None and space == last["space"]:
        begun = _centroids(last)
        if not isinstance(k, int):
            begun = np.vstack([begun, *_emerging(x, begun, last["radius"])])
            ks = [*ks, len(begun)]
    blank = ~x.any(axis=1)
    centroids = clusters.partition(x if blank.all() else x[~blank], ks, begun, MARGIN, ENOUGH).centroids
    labels, distance, _ = clusters.assign(x, centroids)
    radius = None
    if outliers and len(texts) >= min_texts:
        known = None if last is None or begun is None else last["radius"]
        radius = round(float(np.quantile(distance, 1 - outliers)), 9) if known is None else known
    near = labels if radius is None else np.where(blank | (distance > radius), -1, labels)
    words = telling(said, near, len(centroids), WORDS)
    next_id = int(previous["next_id"]) if previous is not None else 1
    pairs: list[int | None] = [None] * len(centroids)
    if last is not None and was is not None:
        pairs = _matched(was, labels, len(last["topics"]), len(centroids))
    topics: list[dict[str, Any]] = []
    for i, pair in enumerate(pairs):
        before = None if pair is None or last is None else last["topics"][pair]
        topic = {"id": before["id"] if before else next_id, "name": None, "words": words[i]}
        next_id += before is None
        if before and len(set(before["named"]) & set(words[i])) >= min(2, len(before["named"])):
            topic |= {"name": before["name"], "named": before["named"]}
        topics.append(topic | {"size": int((near == i).sum()), "centroid": np.round(centroids[i], 7).tolist()})
    _name(topics)
    return {
        "format": FORMAT,
        "space": space,
        "topics": topics,
        "next_id": next_id,
        "radius": radius,
        "temperature": round(_temperature(x, centroids, labels), 6),
    }


def apply(fitted: dict[str, Any], texts: Sequence[str], vectors: Matrix | None) -> Found:
    """The topic of each text under a fit. vectors: where it was fitted on such."""
    x = _points([terms(text) for text in texts] if vectors is None else [], vectors, fitted["space"])
    centroids = _centroids(fitted)
    labels, distance, _ = clusters.assign(x, centroids)
    likely = calibration.softmax(_likeness(x, centroids), fitted["temperature"])
    radius = fitted["radius"]
    far = np.zeros(len(x), bool) if radius is None else ~x.any(axis=1) | (distance > radius)
    return Found(np.where(far, -1, labels), likely[np.arange(len(x)), labels], distance)


def _points(said: Sequence[list[str]], vectors: Matrix | None, space: dict[str, Any] | None) -> Matrix:
    """(texts, dim) of length 1, or 0 where nothing is known of a text."""
    if vectors is not None:
        return np.asarray(vectors, np.float64)
    assert space is not None, "without vectors there are terms"
    components = _unpacked(space["components"], len(space["terms"]))
    place = {term: i for i, term in enumerate(space["terms"])}
    idf = np.array(space["idf"])
    x = np.zeros((len(said), components.shape[1]))
    for row, of_text in enumerate(said):
        at, counts = np.unique([place[term] for term in of_text if term in place], return_counts=True)
        if len(at):
            at = at.astype(np.int64)
            x[row] = ((1 + np.log(counts)) * idf[at]) @ components[at]
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(np.divide(x, length, out=np.zeros_like(x), where=length > 0))


def _space(said: Sequence[list[str]], last: dict[str, Any] | None) -> dict[str, Any]:
    """The terms that count and what they mean; last night's while tonight's texts use them as much."""
    old = None if last is None else last["space"]
    if old is not None and _coverage(said, old["terms"]) >= FAMILIAR * old["coverage"]:
        return dict(old)
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from threadpoolctl import threadpool_limits

    counted = TfidfVectorizer(
        analyzer=list, sublinear_tf=True, min_df=2 if len(said) >= LEAST else 1, max_features=TERMS
    )
    try:
        matrix = counted.fit_transform(said)
    except ValueError:  # no term is left; scikit-learn has no type of its own for it
        return {"terms": [], "idf": [], "components": _packed(np.zeros((0, 1))), "coverage": 0.0}
    names = counted.get_feature_names_out().tolist()
    dim = min(DIM, *(n - 1 for n in matrix.shape))
    components = np.eye(len(names))
    if dim >= 1 and dim < len(names) - 1:
        with threadpool_limits(1):  # sums in one order
            components = TruncatedSVD(dim, random_state=clusters.SEED).fit(matrix).components_.T
    idf = np.round(counted.idf_, 6).tolist()
    return {"terms": names, "idf": idf, "components": _packed(components), "coverage": _coverage(said, names)}


def _coverage(said: Sequence[list[str]], known: Sequence[str]) -> float:
    """Share of the texts' terms that are known."""
    names = set(known)
    return sum(t in names for of_text in said for t in of_text) / max(1, sum(map(len, said)))


def _last_topics(last: dict[str, Any], said: Sequence[list[str]], vectors: Matrix | None) -> Indices | None:
    """(texts,) which of last night's topics each text would be of; None where they are of other vectors."""
    centroids = _centroids(last)
    if (last["space"] is None) != (vectors is not None):
        return None
    if vectors is not None and vectors.shape[1] != centroids.shape[1]:
        return None
    return clusters.assign(_points(said, vectors, last["space"]), centroids)[0]


def _centroids(fitted: dict[str, Any]) -> Matrix:
    return np.array([topic["centroid"] for topic in fitted["topics"]], np.float64)


def _grid(fewest: int, most: int, texts: int) -> list[int]:
    """Numbers of topics to try: each about two fifths more than the one before."""
    most = max(1, min(most, texts // LEAST))
    ks = [min(fewest, most)]
    while ks[-1] < most:
        ks.append(min(most, max(ks[-1] + 1, round(ks[-1] * 1.4))))
    return ks


def _emerging(x: Matrix, centroids: Matrix, radius: float | None) -> list[Matrix]:
    """Centres (1, dim) of texts that lie close together and in no topic of last night's."""
    _, distance, _ = clusters.assign(x, centroids)
    typical = float(np.median(distance)) if len(distance) else 0.0
    limit = radius if radius is not None else float(np.quantile(distance, 0.95)) if len(distance) else 0.0
    far = x[distance > limit]
    far = far[:: -(-len(far) // _MOST_FAR)] if len(far) else far
    need = max(NEW_LEAST, round(NEW_SHARE * len(x)))
    made: list[Matrix] = []
    # Two texts of a topic lie apart by the root of two times what each lies from its centre.
    while len(far) >= need:
        squares = (far**2).sum(1)
        close = squares[:, None] + squares - 2 * far @ far.T <= 2 * typical**2
        best = int(np.argmax(close.sum(axis=1)))
        if close[best].sum() < need:
            break
        made.append(far[close[best]].mean(axis=0, keepdims=True))
        far = far[~close[best]]
    return made


def _matched(old: Indices, new: Indices, olds: int, news: int) -> list[int | None]:
    """For each topic of tonight that of last night which it continues: pairs share most texts (Kuhn 1955), and the new
    one more than half of its own. old, new: (texts,) topics of the same texts."""
    from scipy.optimize import linear_sum_assignment

    shared = np.zeros((olds, news), np.int64)
    np.add.at(shared, (old, new), 1)
    pairs: list[int | None] = [None] * news
    for i, j in zip(*linear_sum_assignment(-shared), strict=True):
        if 2 * shared[i, j] > shared[:, j].sum():
            pairs[j] = int(i)
    return pairs


def _name(topics: list[dict[str, Any]]) -> None:
    """A name for each topic that has none: its most telling words, and a number where another has it."""
    taken = {topic["name"] for topic in topics} - {None}
    for topic in topics:
        if topic["name"] is None:
            named = topic["words"][:IN_NAME] or [f"topic {topic['id']}"]
            name = ("、" if is_cjk("".join(named)) else ", ").join(named)
            topic |= {"name": f"{name} ({topic['id']})" if name in taken else name, "named": named}
            taken.add(topic["name"])


def _likeness(x: Matrix, centroids: Matrix) -> Matrix:
    """(texts, topics): higher for nearer centres; differences are those of squared distances."""
    return np.asarray(SHARPNESS * (x @ centroids.T - (centroids**2).sum(axis=1) / 2))


def _temperature(x: Matrix, centroids: Matrix, labels: Indices) -> float:
    """With which likeness tells how probably a text had the same topic, had the topics been moved by other texts: the
    centres of each half of the texts, asked about the other half."""
    if len(centroids) < 2 or len(x) < 2 * len(centroids):
        return 1.0
    likely, truth = [], []
    half = np.arange(len(x)) % 2
    for one in (0, 1):
        moved = centroids.copy()
        for i in range(len(centroids)):
            members = x[(half == one) & (labels == i)]
            moved[i] = members.mean(axis=0) if len(members) else centroids[i]
        likely.append(_likeness(x[half != one], moved))
        truth.append(labels[half != one])
    return calibration.fit_temperature(np.vstack(likely), np.concatenate(truth))


def _packed(array: Matrix) -> str:
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()


def _unpacked(text: str, rows: int) -> Matrix:
    flat = np.frombuffer(base64.b64decode(text), "<f4").astype(np.float64)
    return flat.reshape(rows, -1) if rows else np.zeros((0, 1))
