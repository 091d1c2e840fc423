"""DeepSpeed's configuration of a recipe, and the combinations that can't work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from bizllm.train.recipe import Recipe

Precision = Literal["fp32", "bf16", "fp16"]
Faults = list[tuple[str, object, str, str]]  # setting, value, what was expected, suggestion

LIVE = 1_000_000_000  # stage 3: parameters that stay whole between their uses; DeepSpeed's default
BUCKET = 50_000_000  # most numbers that are sent at once; DeepSpeed keeps buffers of that size
SMALL = 100_000  # parameters under this size are kept whole at stage 3: sending them costs more than keeping them


def device_name() -> str:
    """What this machine computes on."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def precision(recipe: Recipe, device: str) -> Precision:
    """The numbers to compute in: `auto` takes bf16 where the device multiplies it."""
    from bizllm.models.batches import native_bfloat16

    asked = recipe.zero.precision
    if asked == "auto":
        return "bf16" if native_bfloat16(device) else "fp32"
    return asked


def faults(recipe: Recipe, device: str) -> Faults:
    """What of `zero`, `method` and `optim` does not go together, each with the reason."""
    zero, method, optim, continual = recipe.zero, recipe.method, recipe.optim, recipe.continual
    found: Faults = []
    if zero.precision == "fp16" and device == "cpu":
        found.append(("zero.precision", "fp16", "CPUs don't compute in fp16", "use auto, bf16 or fp32"))
    if zero.offload != "none" and device == "cpu":
        found.append(
            ("zero.offload", zero.offload, "there is no GPU memory to spare: training runs on CPUs", "use none")
        )
    if zero.offload != "none" and zero.stage == 0:
        found.append(("zero.offload", zero.offload, "stage 0 shards nothing and offloads nothing", "use stage 2 or 3"))
    if zero.offload == "nvme" and zero.stage != 3:
        found.append(("zero.offload", "nvme", "only stage 3 offloads to NVMe", "use `stage: 3`"))
    if zero.offload == "nvme" and not zero.nvme_path:
        found.append(("zero.nvme_path", None, "'nvme_path' is missing: a folder on a local NVMe disk", ""))
    if method.kind == "adalora" and zero.stage == 3:
        reason = "AdaLoRA keeps its updates orthogonal and needs them whole, which stage 3 doesn't keep"
        found.append(("zero.stage", 3, reason, "use `stage: 2`, or `method: {kind: lora}`"))
    if zero.stage == 3 and (continual.ewc or continual.l2_sp):
        reason = "a distance to earlier parameters needs them whole, which stage 3 doesn't keep"
        found.append(("zero.stage", 3, reason, "use `stage: 2`, or `continual: {distill: …}`"))
    if recipe.augment is not None and recipe.augment.mixup:
        if recipe.objective not in ("classification", "pair", "multi_label"):
            found.append(
                ("augment.mixup", recipe.augment.mixup, f"mixes classes; {recipe.objective} has none", "use 0")
            )
        elif recipe.pooling == "native":
            reason = "mixes pooled vectors, which transformers' own heads don't let through"
            found.append(("augment.mixup", recipe.augment.mixup, reason, "use `pooling: mean`"))
        elif optim.r_drop:
            found.append(("optim.r_drop", optim.r_drop, "r_drop and mixup can't be used together", "use one of them"))
    classes = recipe.objective in ("classification", "pair", "multi_label")
    if optim.r_drop and not classes:
        found.append(("optim.r_drop", optim.r_drop, f"compares classes; {recipe.objective} has none", "use 0"))
    if optim.class_weights != "none" and recipe.objective not in ("classification", "pair"):
        found.append(("optim.class_weights", optim.class_weights, "is for classification and pair", "use none"))
    if continual.distill and not classes:
        found.append(("continual.distill", continual.distill, "is for classes", "use replay or l2_sp"))
    language = recipe.objective in ("causal_lm", "seq2seq")
    if method.virtual and not language:
        reason = "virtual tokens are for language models: causal_lm and seq2seq"
        found.append(("method.kind", method.kind, reason, "use lora, adapter or head"))
    if method.kind == "head" and (language or recipe.objective in ("embedding", "masked_lm")):
        found.append(("method.kind", "head", f"{recipe.objective} has no head of its own to train", "use lora"))
    return found


def configuration(recipe: Recipe, workers: int, parts: int, numbers: Precision, device: str) -> dict[str, Any]:
    """What `deepspeed.initialize` takes. parts: micro-batches of a worker and step.

    bf16 on a CPU is autocast over fp32 parameters; on a GPU parameters are bf16 beside an fp32 copy in the optimizer.
    """
    zero = recipe.zero
    micro = max(1, -(-recipe.optim.batch // (workers * parts)))
    said: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": parts,
        "train_batch_size": micro * parts * workers,
        "gradient_clipping": recipe.optim.clip or 0.0,
        "zero_optimization": {
            "stage": zero.stage,
            "reduce_bucket_size": BUCKET,
            "allgather_bucket_size": BUCKET,
            "overlap_comm": device != "cpu",
            "contiguous_gradients": True,
        },
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
    if zero.stage == 3:
        said["zero_optimization"] |= {
            "stage3_gather_16bit_weights_on_model_save": True,
            "stage3_param_persistence_threshold": SMALL,
            "stage3_prefetch_bucket_size": BUCKET,
            "stage3_max_live_parameters": LIVE,
        }
    if zero.offload != "none":
        place: dict[str, Any] = {"device": zero.offload, "pin_memory": True}
        if zero.offload == "nvme":
            place["nvme_path"] = zero.nvme_path
        said["zero_optimization"]["offload_optimizer"] = place
        if zero.stage == 3:
            said["zero_optimization"]["offload_param"] = dict(place)
        said["zero_force_ds_cpu_optimizer"] = False
    if numbers == "bf16" and device == "cpu":
        said["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    elif numbers == "bf16":
        said["bf16"] = {"enabled": True}
    elif numbers == "fp16":
        said["fp16"] = {"enabled": True}
    return said
