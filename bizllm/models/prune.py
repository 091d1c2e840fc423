"""A smaller network made of a larger one: some of its layers, and of each the feed-forward units that do most.

Layers are kept at equal distances, the first and the last among them (as by Sanh et al. 2019). A feed-forward unit does
as much as its mean size on some texts times the length of the column that carries it on, the criterion of Sun et al.
2023 for weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from bizllm.errors import Fault, UserError
from bizllm.models.batches import Windows, by_budget, padded
from bizllm.models.network import Logits, Network, load_network, save_network
from bizllm.models.saved import ModelInfo, write_info

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_BUDGET = 2_048  # tokens of a batch that is looked at
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "vocab.txt", "merges.txt", "*.model", "added_tokens.json")
_LISTS = ("layer_types",)  # settings of a config that say something of each layer


def pruned(
    folder: Path, info: ModelInfo, target: Path, layers: int | None, feed_forward: float, windows: Windows, place: str
) -> None:
    """Write the smaller model of the folder's into `target`: weights, head, tokenizer, bizllm.json.

    layers: how many stay; None: all. feed_forward: the share of each layer's units that stays. windows: of texts that
    tell what units do. place: where that was asked, for faults. Raises UserError.
    """
    network = load_network(folder, info)
    config, stack = _stack(network, place)
    if layers is not None and layers > len(stack):
        raise UserError(Fault(f"{place}.layers", layers, f"the model has {len(stack)} layers"))
    if feed_forward < 1.0:
        _narrow(network, config, stack, feed_forward, windows, f"{place}.feed_forward")
    if layers is not None:
        _keep_layers(config, stack, layers)
    save_network(network, target)
    for pattern in _TOKENIZER:
        for file in folder.glob(pattern):
            shutil.copy(file, target)
    write_info(target, info)


def layer_count(folder: Path) -> int:
    """How many layers the model in the folder has, as its config says."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return int(config.num_hidden_layers)


def _stack(network: Network, place: str) -> tuple[PretrainedConfig, nn.ModuleList]:
    """The network's config and its layers."""
    inner: Any = network.model if isinstance(network, Logits) else network.backbone
    count = int(inner.config.num_hidden_layers)
    for module in inner.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and len({type(layer) for layer in module}) == 1:
            return inner.config, module
    raise UserError(Fault(place, inner.config.model_type, "no stack of equal layers is known in models of this type"))


def _keep_layers(config: PretrainedConfig, stack: nn.ModuleList, count: int) -> None:
    kept = np.unique(np.round(np.linspace(0, len(stack) - 1, count)).astype(int)).tolist()
    for name in _LISTS:
        said = getattr(config, name, None)
        if isinstance(said, list) and len(said) == len(stack):
            setattr(config, name, [said[i] for i in kept])
    layers = [stack[i] for i in kept]
    while len(stack):
        del stack[-1]
    stack.extend(layers)
    config.num_hidden_layers = len(layers)


def _narrow(
    network: Network, config: PretrainedConfig, stack: nn.ModuleList, share: float, windows: Windows, place: str
) -> None:
    """Leave out the units of each layer's feed-forward part that do least."""
    units = getattr(config, "intermediate_size", None)
    parts = [_feed_forward(layer, units) for layer in stack]
    if any(not into or len(out) != 1 for into, out in parts):
        raise UserError(Fault(place, share, f"is not known of models of the type {config.model_type}"))
    activity = _activity(network, [out[0] for _, out in parts], windows)
    count = max(1, round(share * cast(int, units)))
    for (into, (last,)), total in zip(parts, activity, strict=True):
        kept = (total * last.weight.norm(dim=0)).topk(count).indices.sort().values
        for linear in into:
            linear.weight = nn.Parameter(linear.weight[kept])
            linear.bias = None if linear.bias is None else nn.Parameter(linear.bias[kept])
            linear.out_features = count
        last.weight = nn.Parameter(last.weight[:, kept])
        last.in_features = count
    config.intermediate_size = count


def _feed_forward(layer: nn.Module, units: int | None) -> tuple[list[nn.Linear], list[nn.Linear]]:
    """The products of a layer that make its units, and those that take them on."""
    linear = [module for module in layer.modules() if isinstance(module, nn.Linear)]
    into = [module for module in linear if module.out_features == units != module.in_features]
    return into, [module for module in linear if module.in_features == units != module.out_features]


def _activity(network: Network, products: Sequence[nn.Linear], windows: Windows) -> list[torch.Tensor]:
    """(units,) of each product: the mean size of what it takes in, over all tokens of the windows."""
    found = [torch.zeros(product.in_features) for product in products]
    real = torch.zeros(0)

    def adder(total: torch.Tensor) -> Any:
        def add(_: nn.Module, taken: tuple[torch.Tensor, ...]) -> None:
            total.add_((taken[0].abs() * real[..., None]).sum((0, 1)))

        return add

    hooks = [product.register_forward_pre_hook(adder(total)) for product, total in zip(products, found, strict=True)]
    with torch.no_grad():
        for rows in by_budget(windows.lengths, _BUDGET):
            batch = {name: torch.from_numpy(array) for name, array in padded(windows, rows, 0).items()}
            real = batch["attention_mask"].float()
            network(**batch)
    for hook in hooks:
        hook.remove()
    return [total / max(1, len(windows.tokens)) for total in found]
