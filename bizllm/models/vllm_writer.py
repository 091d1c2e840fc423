"""Models that write, computed by vLLM (Kwon et al., Efficient memory management for large language model serving with
PagedAttention, SOSP 2023): continuous batching over a paged cache, on a GPU.

Written against vLLM's documentation and source (to 0.32) and held against a stand-in of it in tests; it was never run
with vLLM itself. Texts become tokens and tokens texts here, as for every writer; vLLM gets and gives token ids alone.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from bizllm.errors import Fault, UserError
from bizllm.models import adapters, batches, virtual_tokens
from bizllm.models.writer import TokenWriter, ends_of, window

INSTALL = "pip install 'bizllm[vllm]' where the GPUs are, or leave it to `auto`"
# Ranks that vLLM knows; an engine is made for the most that its adapters may have.
_RANKS = (64, 128, 256, 320, 512)
_SEED = 0  # of the engine; greedy answers draw nothing


def installed() -> bool:
    """Whether the package is there. It is not imported, which takes seconds."""
    return importlib.util.find_spec("vllm") is not None


@dataclass(eq=False)
class _Engine:
    """A base in vLLM, which reserves most of the GPU's memory: one in a process for all adapters over it.

    numbers: of each adapter, by its name; vLLM wants them unique and above 0.
    """

    llm: Any
    numbers: dict[str, int] = field(default_factory=dict)


_ENGINES: WeakValueDictionary[str, _Engine] = WeakValueDictionary()


@dataclass(frozen=True)
class VllmWriter(TokenWriter):
    """A causal model, computed by vLLM.

    engine: what computes it. adapter: a LoRARequest of vLLM, where an adapter is asked and not its base.
    """

    engine: _Engine
    adapter: Any = None

    @classmethod
    def load(cls, folder: Path, content_hash: str, on: Path | None = None, dtype: str | None = None) -> VllmWriter:
        """Load from a folder of safetensors, config and tokenizer. No code from the folder is run. Raises UserError.

        content_hash: of the model, of an adapter that of its base. on: the base's folder, where `folder` holds an
        adapter. dtype: bfloat16 or float32; default the fastest that the GPU computes natively.
        """
        if not installed():
            raise UserError(Fault("engine", "vllm", "is not installed", INSTALL))
        from transformers import AutoConfig

        base = on or folder
        config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
        if config.is_encoder_decoder or virtual_tokens.count(base):
            what = "virtual tokens" if virtual_tokens.count(base) else "an encoder and a decoder"
            raise UserError(Fault("engine", "vllm", f"computes no model with {what}", "use `engine: torch`"))
        own = (folder / "tokenizer.json").is_file()
        tokenizer = batches.load_tokenizer(folder if own else base)
        ends = ends_of(_stated_ends(base, config), tokenizer, config.model_type)
        most = min(window(config, tokenizer, base), window(config, tokenizer, folder))
        _, dtype = batches.placement(None, dtype)
        rank = _rank(folder) if on else 0
        engine = _engine(f"{content_hash} {dtype} {rank}", base, dtype, window(config, tokenizer, base), rank)
        return cls(tokenizer, most, ends, engine, _request(engine, folder) if on else None)

    @property
    def _seq2seq(self) -> bool:
        return False

    def _write(
        self,
        ids: list[list[int]],
        max_new_tokens: int,
        temperature: float,
        seeds: list[int],
        schema: Mapping[str, Any] | None,
    ) -> list[list[int]]:
        from vllm import SamplingParams

        if not ids:
            return []
        guided: dict[str, Any] = {}
        if schema is not None:
            from vllm.sampling_params import StructuredOutputsParams

            guided["structured_outputs"] = StructuredOutputsParams(json=dict(schema))

        def sampling(seed: int) -> Any:
            return SamplingParams(
                n=1,
                temperature=temperature,
                seed=seed,
                max_tokens=max_new_tokens,
                stop_token_ids=list(self.ends),
                detokenize=False,
                **guided,
            )

        made = self.engine.llm.generate(
            [{"prompt_token_ids": row} for row in ids],
            [sampling(seed) for seed in seeds] if seeds else sampling(_SEED),
            use_tqdm=False,
            lora_request=self.adapter,
        )
        assert len(made) == len(ids), "vLLM answers every prompt, in their order"
        return [self.until_end(list(one.outputs[0].token_ids)) for one in made]


def _engine(key: str, base: Path, dtype: str, max_tokens: int, rank: int) -> _Engine:
    """rank: the most that an adapter may have; 0 for none. max_tokens: the window that its cache is made for."""
    found = _ENGINES.get(key)
    if found is not None:
        return found
    # Scheduling in this process follows from the prompts alone, so that equal calls give equal answers; and nothing of
    # what runs here is told to anybody. Both are read when vLLM is imported.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    from vllm import LLM

    lora: dict[str, Any] = {"enable_lora": True, "max_lora_rank": rank, "max_loras": 1} if rank else {}
    llm = LLM(
        model=str(base),
        tokenizer=str(base),  # of which it only makes the grammar of a JSON Schema
        trust_remote_code=False,
        load_format="safetensors",
        dtype=dtype,
        seed=_SEED,
        max_model_len=max_tokens,
        enable_prefix_caching=True,
        generation_config="vllm",  # of the folder's own generation settings only token ids count
        disable_log_stats=True,
        **lora,
    )
    made = _ENGINES[key] = _Engine(llm)
    return made


def _request(engine: _Engine, folder: Path) -> Any:
    from vllm.lora.request import LoRARequest

    name = adapters.content_name(folder)
    number = engine.numbers.setdefault(name, len(engine.numbers) + 1)
    return LoRARequest(name, number, str(folder))


def _rank(folder: Path) -> int:
    """The rank that an engine for this adapter is made for. Raises UserError."""
    most = adapters.rank(folder)
    found = next((rank for rank in _RANKS if rank >= most), None)
    if found is None:
        raise UserError(Fault("engine", "vllm", f"computes adapters of rank 512 at most; this one has {most}"))
    return found


def _stated_ends(folder: Path, config: Any) -> list[int] | int | None:
    """The ends that the folder's generation settings state, else its config."""
    file = folder / "generation_config.json"
    said = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    found: list[int] | int | None = said.get("eos_token_id", getattr(config, "eos_token_id", None))
    return found
