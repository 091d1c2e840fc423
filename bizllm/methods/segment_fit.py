"""The fitted state of segments: clusters with ids and names that last, as JSON, and how it is applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bizllm.methods.clusters import DIGITS, Matrix, Scaling, assign, match, partition
from bizllm.methods.segment_names import Language, Population, names

FORMAT = 1
NAME_MARGIN = 0.35  # robust standard deviations a cluster may drift in any feature before its name is thought over

Values = Mapping[str, npt.NDArray[np.float64]]  # feature: (entities,), NaN where unknown


@dataclass(frozen=True)
class Assigned:
    """For each entity its segment: (entities,) each."""

    name: list[str]
    id: npt.NDArray[np.int32]
    confidence: npt.NDArray[np.float64]
    distance: npt.NDArray[np.float64]


def fit_segments(
    values: Values,
    features: Sequence[str],
    log: Sequence[bool],
    ks: Sequence[int],
    language: Language,
    min_entities: int,
    previous: dict[str, Any] | None,
) -> dict[str, Any]:
    """Cluster the entities by `features` and name the clusters, continuing last night's fit.

    A cluster that continues one of last night's keeps its id, and its name until it has drifted by NAME_MARGIN from
    where it was named. Ids of clusters that are gone are never given again. With fewer than `min_entities` entities,
    last night's fit stays as it is; on a first night everyone is then one segment.
    """
    last = previous if previous is not None and _continues(previous, features, log) else None
    x_plain = np.column_stack([values[f] for f in features])
    if len(x_plain) < min_entities:
        if last is not None:
            return last
        ks = [1]
    scaling = Scaling.of(x_plain, log)
    x = scaling.apply(x_plain)

    old_scaling, old = None, None
    if last is not None:
        old_scaling = Scaling.from_json(last["scaling"])
        old = np.array([s["centroid"] for s in last["segments"]], dtype=np.float64)
    found = partition(x, ks, None if old is None or old_scaling is None else old_scaling.convert(old, scaling))
    centroids = found.centroids
    pairs: list[int | None] = [None] * len(centroids)
    if last is not None and old is not None and old_scaling is not None:
        pairs = match(old, scaling.convert(centroids, old_scaling))

    next_id = int(previous["next_id"]) if previous is not None else 1
    segments: list[dict[str, Any]] = []
    labels, _, _ = assign(x, centroids)
    plain = np.round(centroids * np.array(scaling.scale) + np.array(scaling.center), DIGITS)
    for i, pair in enumerate(pairs):
        before = None if pair is None or last is None else last["segments"][pair]
        members = labels == i
        segment: dict[str, Any] = {
            "id": before["id"] if before else next_id,
            "name": None,
            "centroid": centroids[i].tolist(),
            "named_at": plain[i].tolist(),
            "size": int(members.sum()),
            "typical": {f: _median(v[members]) for f, v in values.items()},
        }
        next_id += before is None
        if before and last is not None and last["language"] == language:
            drift = np.abs(plain[i] - np.array(before["named_at"])) / np.array(scaling.scale)
            if (drift <= NAME_MARGIN).all():
                segment |= {"name": before["name"], "named_at": before["named_at"]}
        segments.append(segment)

    named = names(
        [{f: np.nan if v is None else v for f, v in s["typical"].items()} for s in segments],
        centroids,
        features,
        Population.of(values),
        language,
        [s["name"] for s in segments],
    )
    for segment, label in zip(segments, named, strict=True):
        segment["name"] = label
    return {
        "format": FORMAT,
        "features": list(features),
        "language": language,
        "entities": len(x),
        "scaling": scaling.to_json(),
        "segments": segments,
        "next_id": next_id,
        "silhouette": {str(k): round(score, 6) for k, score in found.scores.items()},
    }


def apply_fit(fit: dict[str, Any], values: Values) -> Assigned:
    """The segment of each entity under a fit."""
    x: Matrix = np.column_stack([values[f] for f in fit["features"]])
    centroids = np.array([s["centroid"] for s in fit["segments"]], dtype=np.float64)
    nearest, distance, confidence = assign(Scaling.from_json(fit["scaling"]).apply(x), centroids)
    segments = fit["segments"]
    ids = np.array([s["id"] for s in segments], dtype=np.int32)
    return Assigned([segments[i]["name"] for i in nearest], ids[nearest], confidence, distance)


@dataclass(frozen=True)
class Reasons:
    """Why an entity is in its segment, (entities, features of the fit) each.

    z: where it lies, and centre: where its segment's centre does, in robust standard deviations from the median of all.
    weight: how much the feature has in the entity being nearer to that centre than to the median, in squares of these.
    """

    z: Matrix
    centre: Matrix
    weight: Matrix


def reasons(fit: dict[str, Any], values: Values) -> Reasons:
    """Of each entity under a fit."""
    z = Scaling.from_json(fit["scaling"]).apply(np.column_stack([values[f] for f in fit["features"]]))
    centroids = np.array([s["centroid"] for s in fit["segments"]], dtype=np.float64)
    centre = centroids[assign(z, centroids)[0]]
    return Reasons(z, centre, z**2 - (z - centre) ** 2)


def _continues(previous: dict[str, Any], features: Sequence[str], log: Sequence[bool]) -> bool:
    """Whether last night's centroids mean the same as tonight's."""
    tonight = (FORMAT, list(features), [bool(b) for b in log])
    return (previous["format"], previous["features"], previous["scaling"]["log"]) == tonight


def _median(values: npt.NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return round(float(np.median(known)), DIGITS) if len(known) else None
