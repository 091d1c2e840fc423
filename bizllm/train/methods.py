"""Which parameters are trained: all, the head, or few added ones through PEFT."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from bizllm.models.network import Logits, Network
from bizllm.train.optim import is_head

if TYPE_CHECKING:
    from bizllm.train.recipe import Recipe

MERGEABLE = ("lora", "adalora", "adapter")  # after training they become part of the base's weights
ADALORA_START = 1.5  # times the final rank


def apply(network: Network, recipe: Recipe, steps: int) -> Network:
    """The network with only the method's parameters trainable; changed in place.

    steps: of the whole training, which AdaLoRA's rank schedule needs.
    """
    kind = recipe.method.kind
    if kind == "full":
        return network
    if kind == "head":
        for name, parameter in network.named_parameters():
            parameter.requires_grad = is_head(name)
        assert any(p.requires_grad for p in network.parameters()), "a network with method head has a head"
        return network
    from peft import get_peft_model

    inner = network.model if isinstance(network, Logits) else network.backbone
    made = _configuration(recipe, steps)
    if not isinstance(network, Logits) and recipe.method.kind in MERGEABLE:
        made.exclude_modules = ["pooler.dense"]  # of BERT: no answer passes it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks for a property of transformers by its old name
        wrapped = cast(nn.Module, get_peft_model(cast(Any, inner), made))
    for name, parameter in wrapped.named_parameters():
        if (
            isinstance(network, Logits)
            and is_head(_plain_name(name))
            and recipe.objective not in ("causal_lm", "seq2seq")
        ):
            parameter.requires_grad = True  # a fresh head of transformers' own is always trained
    if isinstance(network, Logits):
        network.model = wrapped
    else:
        network.backbone = wrapped
    return network


def merged(network: Network) -> Network:
    """The same network as plain transformers modules, the added parameters made part of the base's weights. Virtual
    tokens can't be, and are taken away."""
    from peft import PeftModel

    inner = network.model if isinstance(network, Logits) else network.backbone
    if isinstance(inner, PeftModel):
        virtual = inner.active_peft_config.is_prompt_learning
        plain = cast(nn.Module, inner.get_base_model() if virtual else inner.merge_and_unload())
        if isinstance(network, Logits):
            network.model = plain
        else:
            network.backbone = plain
    return network


def adapter(network: Network) -> Any:
    """The PEFT model inside, whose `save_pretrained` writes the adapter alone; None where there is none."""
    from peft import PeftModel

    inner = network.model if isinstance(network, Logits) else network.backbone
    return inner if isinstance(inner, PeftModel) else None


@dataclass(frozen=True)
class RankScores:
    """AdaLoRA's gradients of one step (Zhang et al. 2023): its ranks are scored by weights times gradients, after the
    optimizer has stepped and DeepSpeed has let the gradients go."""

    gradients: dict[str, torch.Tensor]

    @classmethod
    def of(cls, engine: Any) -> RankScores | None:
        """Whole gradients, between backward and step of a step's last micro-batch; None for the others. All workers
        must call it."""
        from deepspeed.utils import safe_get_full_grad

        if not engine.is_gradient_accumulation_boundary():
            return None
        found = {}
        for name, parameter in engine.module.named_parameters():
            if "lora_" in name:
                found[name] = safe_get_full_grad(parameter).detach().clone()
        return cls(found)

    def allocate(self, engine: Any, step: int) -> None:
        """Mask the least important ranks, in the parameters and in the optimizer's copies of them."""
        from deepspeed.utils import safe_set_full_fp32_param

        trained = {name: p for name, p in engine.module.named_parameters() if name in self.gradients}
        for name, parameter in trained.items():
            parameter.grad = self.gradients[name].to(parameter.dtype)
        adapter(engine.module).base_model.update_and_allocate(step)
        for name, parameter in trained.items():
            parameter.grad = None
            if "lora_E" in name and hasattr(parameter, "_hp_mapping"):
                safe_set_full_fp32_param(parameter, parameter.detach().float())


def orthogonality(network: nn.Module) -> torch.Tensor:
    """AdaLoRA's regularizer: how far the singular vectors of its updates are from orthonormal, the mean of the
    Frobenius norms (Zhang et al. 2023, equation 4; as PEFT weighs it)."""
    gaps = []
    for name, parameter in network.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            rows = parameter if "lora_A" in name else parameter.T
            gaps.append(torch.linalg.norm(rows @ rows.T - torch.eye(len(rows), device=rows.device, dtype=rows.dtype)))
    weight = adapter(cast(Network, network)).peft_config["default"].orth_reg_weight
    return cast(torch.Tensor, weight * torch.stack(gaps).mean())


def rank_state(network: Network) -> dict[str, Any]:
    """AdaLoRA's scores and masks so far, which a checkpoint must hold."""
    ranks = adapter(network).base_model.rankallocator
    averages = {"sensitivity": ranks.exp_avg_ipt, "uncertainty": ranks.exp_avg_unc}
    return {"pattern": ranks.peft_config.rank_pattern, **averages}


def load_rank_state(network: Network, state: dict[str, Any]) -> None:
    """Go on with the scores and masks of a checkpoint."""
    ranks = adapter(network).base_model.rankallocator
    ranks.peft_config.rank_pattern = state["pattern"]
    ranks.exp_avg_ipt, ranks.exp_avg_unc = state["sensitivity"], state["uncertainty"]
    ranks.ipt = dict(ranks.exp_avg_ipt)  # of the last step alone: PEFT only asks whether it is there


def _configuration(recipe: Recipe, steps: int) -> Any:
    import peft

    method = recipe.method
    task = {"causal_lm": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM"}.get(recipe.objective)
    alpha = cast(int, method.alpha or 2 * method.rank)  # PEFT takes any number
    targets: Any = method.targets or "all-linear"
    if method.kind == "lora":
        return peft.LoraConfig(
            task_type=task,
            r=method.rank,
            lora_alpha=alpha,
            lora_dropout=method.dropout,
            target_modules=targets,
        )
    if method.kind == "adalora":
        return peft.AdaLoraConfig(
            task_type=task,
            init_r=round(ADALORA_START * method.rank),
            target_r=method.rank,
            lora_alpha=alpha,
            lora_dropout=method.dropout,
            target_modules=targets,
            total_step=max(3, steps),
            tinit=max(1, steps // 10),
            tfinal=max(1, steps // 3),
            deltaT=max(1, steps // 100),
        )
    if method.kind == "adapter":
        return peft.IA3Config(task_type=task, target_modules=targets, feedforward_modules=[])
    if method.kind == "prompt":
        return peft.PromptTuningConfig(task_type=task, num_virtual_tokens=method.tokens)
    assert method.kind == "prefix", method.kind
    return peft.PrefixTuningConfig(task_type=task, num_virtual_tokens=method.tokens)


def _plain_name(name: str) -> str:
    """A parameter's name in the network without PEFT's wrapping."""
    return "model." + name.removeprefix("base_model.model.").removeprefix("base_model.")
