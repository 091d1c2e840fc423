"""The best weights of a training → a model's folder that plain transformers loads, and for added parameters an adapter
of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bizllm.models import virtual_tokens
from bizllm.models.content import content_hash
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

    Added parameters are merged, and kept in `adapter/` too; a LoRA that writes can be used from there by
    itself. Those of prompt and prefix tuning can't be merged: they stand there alone, and the weights are the base's.
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
        if work.recipe.method.kind == "lora" and work.recipe.objective in ("causal_lm", "seq2seq"):
            # So that the adapter can be used by itself, beside others on one base.
            base = f"path:{work.base.resolve()}" if work.info.base.startswith("path:") else work.info.base
            of_adapter = replace(work.info, base=base, base_hash=content_hash(work.base))
            write_info(folder / virtual_tokens.FOLDER, of_adapter)
    save_network(methods.merged(network), folder)
    if work.recipe.objective == "masked_lm" and (said := work.base / POOLING).is_file():
        # A base for further training: how its base made one vector of a text still holds.
        (folder / POOLING).parent.mkdir(exist_ok=True)
        (folder / POOLING).write_bytes(said.read_bytes())
    work.tokenizer.save_pretrained(folder)
    write_info(folder, work.info)
    return Trained(parameters, trainable)
