"""What is asked of vLLM, held against a stand-in for it: vLLM itself needs a GPU, and was not run here."""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from bizllm.errors import UserError
from bizllm.models import adapters, vllm_writer
from bizllm.models.generator import Generator, TooLong
from bizllm.models.load import ModelLoader, content_hash, resolve
from bizllm.models.vllm_writer import VllmWriter

WORDS = ["lid", "box", "cat", "tea", "mill", "lamp", "desk", "rain"]
ASKED = [f"{one} {other} so" for one in WORDS for other in WORDS]
# Names of vLLM's documentation: LLM's and EngineArgs' arguments, and the fields of SamplingParams.
ENGINE = {
    *("model", "tokenizer", "trust_remote_code", "load_format", "dtype", "seed", "max_model_len"),
    *("enable_prefix_caching", "generation_config", "disable_log_stats", "enable_lora", "max_lora_rank", "max_loras"),
}
SAMPLING = {"n", "temperature", "seed", "max_tokens", "stop_token_ids", "detokenize", "structured_outputs"}
RANKS = {1, 8, 16, 32, 64, 128, 256, 320, 512}


@dataclass
class LoRARequest:
    """As vLLM's: the first three fields, in that order."""

    lora_name: str
    lora_int_id: int
    lora_path: str


class SamplingParams:
    def __init__(self, **said: Any) -> None:
        assert set(said) <= SAMPLING
        self.__dict__.update(said)


@dataclass
class Calls:
    """What vLLM was asked: an engine's arguments, and of each call the prompts, settings and adapter."""

    engines: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[list[dict[str, Any]], Any, Any]] = field(default_factory=list)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    """A stand-in that answers greedily by the folder's own model, one prompt at a time, as vLLM's documentation says:
    outputs in the order of the prompts, with the stop token among the token ids."""
    calls = Calls()

    class LLM:
        def __init__(self, **said: Any) -> None:
            assert set(said) <= ENGINE and said.get("max_lora_rank", 64) in RANKS
            calls.engines.append(said)
            self.model = AutoModelForCausalLM.from_pretrained(said["model"], dtype=torch.float32).eval()

        def generate(
            self, prompts: Any, sampling_params: Any, *, use_tqdm: bool, lora_request: Any = None
        ) -> list[Any]:
            calls.asked.append((prompts, sampling_params, lora_request))
            each = sampling_params if isinstance(sampling_params, list) else [sampling_params] * len(prompts)
            return [self._answer(prompt["prompt_token_ids"], one) for prompt, one in zip(prompts, each, strict=True)]

        def _answer(self, prompt: list[int], said: Any) -> Any:
            ids = torch.tensor([prompt])
            out = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=said.max_tokens,
                eos_token_id=said.stop_token_ids,
                pad_token_id=0,
            )[0, len(prompt) :].tolist()
            return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(out))])

    package, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    sampling = ModuleType("vllm.sampling_params")
    sampling.__dict__.update(StructuredOutputsParams=lambda json: SimpleNamespace(json=json))
    package.__dict__.update(LLM=LLM, SamplingParams=SamplingParams)
    request.__dict__.update(LoRARequest=LoRARequest)
    modules = {"vllm": package, "vllm.lora": lora, "vllm.lora.request": request, "vllm.sampling_params": sampling}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(vllm_writer, "installed", lambda: True)
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_NO_USAGE_STATS"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    yield calls
    gc.collect()
    assert not vllm_writer._ENGINES, "an engine goes with the last that needs it"


@pytest.fixture
def folder(small_generator: Callable[[str], Path]) -> Path:
    return small_generator("causal")


def test_answers_are_those_of_the_other_writer(vllm: Calls, folder: Path) -> None:
    writer = VllmWriter.load(folder, "hash", dtype="float32")
    plain = Generator.load(folder, "cpu", "float32")
    asked = [*ASKED, ASKED[0]]
    made, expected = writer.generate(asked, 8), plain.generate(asked, 8)
    assert made.texts == expected.texts
    for name in ("input_tokens", "output_tokens", "finished"):
        assert getattr(made, name).tolist() == getattr(expected, name).tolist()
    ((prompts, said, adapter),) = vllm.asked
    assert len(prompts) == len(ASKED), "equal prompts are asked once, all in one call"
    assert (said.temperature, said.seed, said.max_tokens, said.n, said.detokenize) == (0.0, 0, 8, 1, False)
    assert said.stop_token_ids == list(plain.ends) and adapter is None
    (engine,) = vllm.engines
    assert engine["model"] == str(folder) and engine["max_model_len"] == 40 and engine["dtype"] == "float32"
    assert engine["enable_prefix_caching"] and engine["tokenizer"] and engine["load_format"] == "safetensors"
    assert engine["seed"] == 0 and not engine["trust_remote_code"] and "enable_lora" not in engine
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0" and os.environ["VLLM_NO_USAGE_STATS"] == "1"
    assert writer.count(ASKED).tolist() == plain.count(ASKED).tolist()
    assert writer.generate([], 8).texts == [] and len(vllm.asked) == 1
    assert not hasattr(said, "structured_outputs")
    writer.generate(asked[:2], 8, schema={"type": "object"})
    assert vllm.asked[1][1].structured_outputs.json == {"type": "object"}
    with pytest.raises(TooLong):
        writer.generate([" ".join(["cat"] * 40)], 8)


def test_samples_have_a_seed_for_each_prompt(vllm: Calls, folder: Path) -> None:
    writer = VllmWriter.load(folder, "hash", dtype="float32")
    for asked, seed in ((ASKED[:4], 5), (ASKED[:4][::-1], 5), (ASKED[:4], 6)):
        writer.generate(asked, 4, temperature=0.7, seed=seed)
    seeds = [
        {tuple(prompt["prompt_token_ids"]): one.seed for prompt, one in zip(prompts, said, strict=True)}
        for prompts, said, _ in vllm.asked
    ]
    assert seeds[0] == seeds[1] != seeds[2] and len(set(seeds[0].values())) == 4
    assert all(one.temperature == 0.7 for one in vllm.asked[0][1])


def adapter(folder: Path, base: Path, rank: int) -> Path:
    folder.mkdir()
    said = {"peft_type": "LORA", "r": rank, "base_model_name_or_path": str(base)}
    (folder / adapters.CONFIG).write_text(json.dumps(said))
    (folder / adapters.WEIGHTS).write_bytes(bytes([rank % 256]))
    return folder


def test_adapters_over_one_base_have_one_engine(vllm: Calls, folder: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(folder, tmp_path / "base"))
    folders = [adapter(tmp_path / f"a{rank}", base, rank) for rank in (8, 24)]
    loader = ModelLoader(writer="vllm")
    one, other = (loader.generator(f"path:{made}") for made in folders)
    assert isinstance(one, VllmWriter) and isinstance(other, VllmWriter) and one.engine is other.engine
    for writer in (one, other, one):
        writer.generate(ASKED[:2], 4)
    assert [request for _, _, request in vllm.asked] == [
        LoRARequest(adapters.content_name(folders[i]), i + 1, str(folders[i])) for i in (0, 1, 0)
    ]
    (engine,) = vllm.engines
    assert engine["model"] == str(base) and engine["enable_lora"] and engine["max_lora_rank"] == 64
    with pytest.raises(UserError, match="rank 512 at most; this one has 600"):
        loader.generator(f"path:{adapter(tmp_path / 'a600', base, 600)}")


def test_a_step_that_asks_for_vllm_gets_it(vllm: Calls, folder: Path) -> None:
    uri = f"path:{folder}"
    pins = {uri: resolve(uri)}
    assert isinstance(ModelLoader(pinned=pins).generator(uri), Generator), "not by itself"
    writer = ModelLoader(pinned=pins, writer="vllm").generator(uri)
    assert isinstance(writer, VllmWriter)
    assert ModelLoader(writer="vllm").generator(uri).engine is writer.engine  # type: ignore[attr-defined]
    assert len(vllm.engines) == 1 and content_hash(folder) in next(iter(vllm_writer._ENGINES))


def test_what_vllm_does_not_compute_is_said(vllm: Calls, small_generator: Callable[[str], Path]) -> None:
    with pytest.raises(UserError, match="an encoder and a decoder"):
        VllmWriter.load(small_generator("seq2seq"), "hash")
    assert not vllm.engines


def test_without_the_package_the_way_to_it_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_writer, "installed", lambda: False)
    with pytest.raises(UserError, match=r"'vllm': is not installed.*pip install 'bizllm\[vllm\]'"):
        VllmWriter.load(folder, "hash")
