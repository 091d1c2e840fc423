"""A base model with a head: what is trained, and what is loaded again for inference.

Token objectives and language models are transformers' own classes. Objectives that answer once a row are either
transformers' own sequence classifier (`pooling: native`) or a `PooledModel`: any backbone, its token vectors pooled to
one vector a row, a linear head on top. A `PooledModel` is saved as its backbone, which `AutoModel` loads, and
`head.safetensors`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from bizllm.models import heads, virtual_tokens
from bizllm.models.saved import ModelInfo, Pooling

transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a worker has no terminal

HEAD = heads.FILE
_AUTO = {
    "token_classification": AutoModelForTokenClassification,
    "causal_lm": AutoModelForCausalLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "masked_lm": AutoModelForMaskedLM,
}
_UNSEEN = torch.finfo(torch.float32).min
# Nothing of a model's folder is run, and nothing is fetched.
_SAFE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


class PooledModel(nn.Module):
    """backbone → (rows, tokens, dim) → pooled (rows, dim) → head → (rows, outputs). No head: the pooled vectors."""

    def __init__(self, backbone: nn.Module, pooling: Pooling, outputs: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.backbone, self.pooling = backbone, pooling
        self.dropout = nn.Dropout(dropout)
        dim = int(cast(Any, backbone.config).hidden_size)
        self.head = nn.Linear(dim, outputs) if outputs else None
        self.scale: tuple[torch.Tensor, torch.Tensor] | None = None  # spread and centre of the outputs
        if self.head is not None:
            heads.fresh(self.head)

    def pooled(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        """(rows, dim) float32 for (rows, tokens) ids and mask."""
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **more).last_hidden_state
        return pool(hidden.float(), attention_mask, self.pooling)

    def of_packed(self, hidden: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(rows, outputs) for the hidden (tokens, dim) of rows that stand behind each other."""
        return self.logits(pool_packed(hidden, starts, lengths, self.pooling))

    def logits(self, pooled: torch.Tensor) -> torch.Tensor:
        """(rows, outputs) for (rows, dim)."""
        if self.head is None:
            return pooled
        made = cast(torch.Tensor, self.head(self.dropout(pooled).to(self.head.weight.dtype))).float()
        if self.scale is not None:
            spread, centre = self.scale
            made = made * spread.to(made.device) + centre.to(made.device)
        return made

    def rescale(self, spread: torch.Tensor, centre: torch.Tensor, keep: bool) -> None:
        """Let the head answer in units of `spread` (outputs,) from `centre`, so that it learns numbers of any size.

        keep: the network goes on to answer as before; else it begins near `centre`. Saved heads need no scale.
        """
        assert self.head is not None
        self.scale = spread, centre
        if keep:
            with torch.no_grad():
                self.head.weight /= spread[:, None]
                self.head.bias.copy_((self.head.bias - centre) / spread)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        mix_order: torch.Tensor | None = None,
        mix_share: torch.Tensor | None = None,
        with_pooled: bool = False,
        **more: torch.Tensor,
    ) -> Any:
        """(rows, outputs) for (rows, tokens) ids and mask; `with_pooled` a pair of that and the vectors (rows, dim).

        mix_order, mix_share: each row's pooled vector becomes `share` of itself and the rest of row `order`'s (mixup).
        """
        pooled = self.pooled(input_ids, attention_mask, **more)
        if mix_order is not None and mix_share is not None:
            pooled = mix_share * pooled + (1 - mix_share) * pooled[mix_order]
        return (self.logits(pooled), pooled) if with_pooled else self.logits(pooled)


class Logits(nn.Module):
    """A transformers model whose forward gives its logits alone, so that all networks are called alike."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **batch: torch.Tensor) -> torch.Tensor:
        """The model's logits: of a language model (rows, tokens, words)."""
        mask, model = batch.get("attention_mask"), cast(Any, self.model)
        if mask is not None and mask.dtype == torch.bool and model.config._attn_implementation == "eager":
            # It adds the mask to the scores, and would add 1 for what is seen.
            batch["attention_mask"] = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, _UNSEEN)
        logits = cast(torch.Tensor, model(**batch).logits)
        if logits.ndim == 3 and "labels" not in batch:  # virtual tokens stand before the text
            logits = logits[:, -batch["input_ids"].shape[1] :]
        return logits


Network = PooledModel | Logits


def pool(hidden: torch.Tensor, attention_mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """(rows, dim) of (rows, tokens, dim): the mean over the tokens of the mask, its first, or its last token."""
    if pooling == "mean":
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
    place = attention_mask.long().argmax(1)  # (rows,)
    if pooling == "last":
        place = attention_mask.shape[1] - 1 - attention_mask.long().flip(1).argmax(1)
    else:
        assert pooling == "cls", pooling
    return hidden.gather(1, place[:, None, None].expand(-1, 1, hidden.shape[2])).squeeze(1)


def pool_packed(hidden: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """(rows, dim) as `pool`, of (tokens, dim) float32 of rows that stand behind each other, each at its start."""
    if pooling == "mean":
        return torch.segment_reduce(hidden, "mean", lengths=lengths, unsafe=True)
    return hidden[starts + lengths - 1 if pooling == "last" else starts]


def new_network(folder: Path, info: ModelInfo, dropout: float | None = None) -> Network:
    """The network to train: the base model in `folder`, its pretrained weights, and a head where it needs one: fresh,
    or that of an earlier training for the same objective, where classes that it does not know yet begin afresh.

    dropout: of the whole model where given, else as the base has it.
    """
    config = AutoConfig.from_pretrained(folder, **_SAFE)
    if dropout is not None:
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "resid_pdrop", "embd_pdrop", "attn_pdrop"):
            if hasattr(config, name):
                setattr(config, name, dropout)
        if hasattr(config, "dropout_rate"):  # T5
            config.dropout_rate = dropout
    load: dict[str, Any] = {**_SAFE, "config": config, "use_safetensors": True, "dtype": torch.float32}
    before = heads.earlier(folder, info)
    if info.objective in _AUTO or info.pooling == "native":
        auto: Any = _AUTO.get(info.objective, AutoModelForSequenceClassification)
        classifies = auto is AutoModelForSequenceClassification
        if classifies and config.pad_token_id is None:
            config.pad_token_id = config.eos_token_id
        if classifies or info.labels:
            _label(config, (before or info).labels or tuple(str(i) for i in range(info.outputs)))
            # Of a classifier of other classes, the head is not wanted.
            model = auto.from_pretrained(folder, **load, ignore_mismatched_sizes=before is None)
        else:
            model = auto.from_pretrained(folder, **load)
        if before is not None and before.labels != info.labels:
            heads.grow(model, before, info)
            _label(model.config, info.labels)
        elif before is None and (classifies or info.labels):
            heads.restart(model, folder, info)
        return Logits(model)
    outputs = 0 if info.objective == "embedding" else info.outputs
    network = PooledModel(
        AutoModel.from_pretrained(folder, **load), info.pooling, outputs, 0.1 if dropout is None else dropout
    )
    if before is not None and network.head is not None:
        heads.carry(network.head, folder, before, info)
    return network


def empty_network(folder: Path, info: ModelInfo) -> Network:
    """A network of that shape without its weights: for counting, under `torch.device("meta")`."""
    config = AutoConfig.from_pretrained(folder, **_SAFE)
    auto: Any = _AUTO.get(info.objective) or (
        AutoModelForSequenceClassification if info.pooling == "native" else AutoModel
    )
    if info.objective in _AUTO or info.pooling == "native":
        if info.labels:
            _label(config, info.labels)
        return Logits(auto.from_config(config))
    return PooledModel(auto.from_config(config), info.pooling, 0 if info.objective == "embedding" else info.outputs)


def load_network(folder: Path, info: ModelInfo) -> Network:
    """A fine-tuned network for inference: eval mode, float32, on the CPU. Its forward gives logits."""
    headed = info.pooling != "native" or info.labels
    assert not headed or heads.earlier(folder, info) is not None, "the folder holds that model, its head too"
    network = new_network(folder, info, dropout=None if info.pooling == "native" else 0.0).eval()
    if isinstance(network, Logits):
        network.model = virtual_tokens.put_before(network.model, folder)
    return network


def load_pooled(folder: Path, pooling: Pooling) -> PooledModel:
    """The backbone alone, for inference, in eval mode, float32, on the CPU: its forward gives pooled vectors."""
    backbone = AutoModel.from_pretrained(folder, **_SAFE, use_safetensors=True, dtype=torch.float32)
    return PooledModel(backbone, pooling, 0).eval()


def save_network(network: Network, folder: Path, state: dict[str, torch.Tensor] | None = None) -> None:
    """Write safetensors and config so that plain transformers loads them.

    state: the whole state dict where the network's own parameters are partitioned (ZeRO-3); names as of the network.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = dict(network.state_dict()) if state is None else state
    state = {
        name: value.detach().to("cpu", torch.float32) if value.is_floating_point() else value.detach().cpu()
        for name, value in state.items()
    }
    inner, prefix = (network.model, "model.") if isinstance(network, Logits) else (network.backbone, "backbone.")
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    cast(Any, inner).save_pretrained(folder, state_dict=weights, safe_serialization=True)
    if isinstance(network, PooledModel) and network.head is not None:
        head = {
            name.removeprefix("head."): value.contiguous() for name, value in state.items() if name.startswith("head.")
        }
        if network.scale is not None:
            spread, centre = network.scale
            head = {"weight": head["weight"] * spread[:, None], "bias": head["bias"] * spread + centre}
        save_file(head, folder / HEAD)


def _label(config: Any, labels: tuple[str, ...]) -> None:
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
