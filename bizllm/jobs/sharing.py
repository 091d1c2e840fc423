"""One pass for many steps: steps that read the same texts by the same backbone let the first compute its vectors.

The first such step of the job keeps the pooled vectors of its units (`infer/vectors.py`); the others wait for it and
put their heads on what it kept, each in the table, with the checks and the receipts that it would have alone. A step
that asks for int8 shares nothing: what agrees for one head need not for another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bizllm.infer.kept_engines import folder_of
from bizllm.jobs.prepare import PreparedStep
from bizllm.models.content import backbone_hash
from bizllm.models.encoder import window_and_pooling
from bizllm.models.saved import read_info
from bizllm.tables import storage


@dataclass(frozen=True)
class Shared:
    """A step's part in it. leader: the step that computes. backbone: its hash, with the pooling."""

    leader: str
    backbone: str

    def vectors(self, warehouse: str, job: str, step: PreparedStep) -> dict[str, str]:
        """The folder of the vectors, by the URI of the step's model."""
        settings = step.settings
        root = storage.join(warehouse, "_bizllm", job, "vectors")
        return {uri: folder_of(root, self.backbone, settings.engine, settings.precision) for uri in _encoders(step)}


def shared_of(steps: Mapping[str, PreparedStep]) -> dict[str, Shared]:
    """Those that share, by name; `steps` in the order in which they run."""
    by_texts = defaultdict(list)
    for step in steps.values():
        if step.task.shape == "row" and len(_encoders(step)) == 1 and step.settings.precision != "int8":
            settings = step.settings
            asked = (settings.input, step.dates, tuple(step.task.reads()), settings.engine, settings.precision)
            by_texts[asked].append(step)
    found: dict[str, Shared] = {}
    for alike in by_texts.values():
        if len(alike) == 1:
            continue
        by_backbone = defaultdict(list)
        for step in alike:
            (uri,) = _encoders(step)
            pin = step.pinned[uri]
            if (backbone := _backbone(pin.folder, pin.content_hash)) is not None:
                by_backbone[backbone].append(step.name)
        found |= {
            name: Shared(names[0], backbone)
            for backbone, names in by_backbone.items()
            if len(names) > 1
            for name in names
        }
    return found


def _encoders(step: PreparedStep) -> list[str]:
    return list(dict.fromkeys(uri for role, uri in step.task.models().items() if role != "generator"))


@cache
def _backbone(folder: Path, content: str) -> str | None:
    """Its hash, with the pooling; None of a model whose head is not put on pooled vectors, or whose weights can't be
    read: loading them says so."""
    info = read_info(folder)
    if info is not None and info.pooling == "native" and info.objective not in ("embedding", "masked_lm"):
        return None
    try:
        return f"{backbone_hash(folder)[:14]}{window_and_pooling(folder)[1][:2]}"
    except (ValueError, KeyError, TypeError):
        return None
