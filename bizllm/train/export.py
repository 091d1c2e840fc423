"""The best weights of a training → a model's folder that plain transformers loads, and for added parameters an adapter
of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bizllm.models import virtual_tokens
from bizllm.models.network import save_network
from bizllm.models.saved import write_info
from bizllm.train import checkpoint, methods
from bizllm.train.work import Work

POOLING = "1_Pooling/config.json"  # of sentence-transformers


@dataclass(frozen=True)
class Trained:
    """The sizes of a trained network."""

    parameters: int
    trainable: int


def export(work: Work, best: Path, folder: Path) -> Trained:
    """Load the best weights into the base and write the model's folder: weights, tokenizer, bizllm.json.

    Added parameters are merged, and kept in `adapter/` too. Those of prompt and prefix tuning can't be merged: they
    stand there alone, and the weights are the base's.
    """
    network = methods.apply(work.network(), work.recipe, 1)
    checkpoint.load_weights(network, best)
    parameters = sum(p.numel() for p in network.parameters())
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    network.eval()
    folder.mkdir(parents=True, exist_ok=True)
    added = methods.adapter(network)
    if added is not None:
        added.save_pretrained(folder / virtual_tokens.FOLDER, safe_serialization=True)
    save_network(methods.merged(network), folder)
    if work.recipe.objective == "masked_lm" and (said := work.base / POOLING).is_file():
        # A base for further training: how its base made one vector of a text still holds.
        (folder / POOLING).parent.mkdir(exist_ok=True)
        (folder / POOLING).write_bytes(said.read_bytes())
    work.tokenizer.save_pretrained(folder)
    write_info(folder, work.info)
    return Trained(parameters, trainable)
