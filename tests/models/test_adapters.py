"""Adapters on one base, beside the models that they were merged into."""

from __future__ import annotations

import gc
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from bizllm.errors import RunError, UserError
from bizllm.models import adapters, load
from bizllm.models.generator import Generator
from bizllm.models.load import ModelLoader, resolve
from bizllm.models.registry import Registry
from bizllm.models.saved import ModelInfo, write_info

WORDS = ["lid", "box", "cat", "tea", "mill", "lamp", "desk", "rain"]
ASKED = [f"{one} {other} {third} so" for one in WORDS for other in WORDS[:3] for third in WORDS[4:]]
Folders = Callable[[str], Path]


def made(base: Path, folder: Path, seed: int, kind: str = "causal") -> tuple[Path, Path]:
    """(an adapter's folder, the same merged into its base) with updates large enough to change answers."""
    torch.manual_seed(seed)
    auto: Any = AutoModelForCausalLM if kind == "causal" else AutoModelForSeq2SeqLM
    task = "CAUSAL_LM" if kind == "causal" else "SEQ_2_SEQ_LM"
    config = peft.LoraConfig(task_type=task, r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    model = peft.get_peft_model(auto.from_pretrained(base), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapter, merged = folder / f"adapter{seed}", folder / f"merged{seed}"
    model.save_pretrained(adapter)
    model.merge_and_unload().save_pretrained(merged)
    for file in base.glob("*token*"):
        shutil.copy(file, merged)
    return adapter, merged


@pytest.fixture
def base(small_generator: Folders, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_generator("causal"), tmp_path / "base"))


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_adapters_on_one_base_answer_as_the_merged_models_do(
    small_generator: Folders, tmp_path: Path, kind: str
) -> None:
    base = Path(shutil.copytree(small_generator(kind), tmp_path / "base"))
    pairs = [made(base, tmp_path, seed, kind) for seed in (1, 2)]
    expected = [Generator.load(merged, "cpu", "float32").generate(ASKED, 6).texts for _, merged in pairs]
    plain = Generator.load(base, "cpu", "float32").generate(ASKED, 6).texts
    assert expected[0] != expected[1] and plain not in expected
    one, other = (Generator.load_adapter(adapter, base, "hash", "cpu", "float32") for adapter, _ in pairs)
    assert one.model is other.model and one.base is other.base
    for _ in range(2):  # in turns
        assert one.generate(ASKED, 6).texts == expected[0]
        assert other.generate(ASKED, 6).texts == expected[1]
    again = Generator.load_adapter(pairs[0][0], base, "hash", "cpu", "float32")
    assert again.model is one.model and again.generate(ASKED, 6).texts == expected[0]


def test_a_base_is_loaded_once_and_let_go_with_its_last_adapter(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads, plain = [], Generator.load.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Generator, "load", classmethod(lambda cls, *a: (loads.append(a[0]), plain(cls, *a))[1]))
    uris = [f"path:{made(base, tmp_path, seed)[0]}" for seed in (1, 2)]
    pins = {uri: resolve(uri, adapter=True) for uri in uris}
    steps = [ModelLoader(pinned={uri: pins[uri]}) for uri in uris]  # of two steps
    found = [step.generator(uri) for step, uri in zip(steps, uris, strict=True)]
    assert found[0].model is found[1].model and loads == [base]
    assert steps[0].generator(uris[0]) is found[0]
    del steps, found
    gc.collect()
    assert not adapters._BASES


def test_base_and_adapter_both_decide_the_hash(base: Path, tmp_path: Path) -> None:
    adapter, _ = made(base, tmp_path, 1)
    uri = f"path:{adapter}"
    first = resolve(uri, adapter=True)
    assert first.on is not None and first.on.folder == base and first.on.content_hash == load.content_hash(base)
    assert first.folder_hash == load.content_hash(adapter) != first.content_hash
    assert pickle.loads(pickle.dumps(first)) == first
    (base / "generation_config.json").write_text("{}")
    second = resolve(uri, adapter=True)
    (adapter / "added.json").write_text("{}")
    assert len({first.content_hash, second.content_hash, resolve(uri, adapter=True).content_hash}) == 3


def test_bizllms_own_words_about_the_base_go_before_pefts(base: Path, tmp_path: Path) -> None:
    adapter, _ = made(base, tmp_path, 1)
    shutil.move(base, tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"j.yaml:4: base of path:.*no such folder"):
        resolve(f"path:{adapter}", place="j.yaml:4", adapter=True)
    right = load.content_hash(tmp_path / "elsewhere")
    write_info(adapter, ModelInfo("a", "causal_lm", max_tokens=24, base="path:../elsewhere", base_hash=right))
    found = resolve(f"path:{adapter}", adapter=True)
    assert found.on is not None and found.on.folder.samefile(tmp_path / "elsewhere")
    generator = ModelLoader().generator(f"path:{adapter}")
    assert generator.max_tokens == 24, "the window of the fine-tuning holds"
    write_info(adapter, ModelInfo("a", "causal_lm", base="path:../elsewhere", base_hash="of another"))
    with pytest.raises(UserError, match="not the model that it was made for"):
        resolve(f"path:{adapter}", adapter=True)


@pytest.mark.parametrize(
    ("said", "uri"),
    [
        ({"base_model_name_or_path": "org/name"}, "hf:org/name"),
        ({"base_model_name_or_path": "org/name", "revision": "v1"}, "hf:org/name@v1"),
        ({"base_model_name_or_path": "registry:writer@3"}, "registry:writer@3"),
        ({"base_model_name_or_path": "/models/base"}, "path:/models/base"),
        ({"base_model_name_or_path": "../base"}, "path:../base"),
    ],
)
def test_pefts_name_of_a_base_becomes_a_uri(tmp_path: Path, said: dict[str, Any], uri: str) -> None:
    (tmp_path / adapters.CONFIG).write_text(json.dumps(said))
    assert adapters.base_of(tmp_path, "path:a", "place") == (uri, "")


def test_what_is_no_adapter_for_here_is_refused(base: Path, tmp_path: Path) -> None:
    adapter, _ = made(base, tmp_path, 1)
    uri, config = f"path:{adapter}", json.loads((adapter / adapters.CONFIG).read_text())
    with pytest.raises(UserError, match="only a `generator` takes"):
        resolve(uri)
    with pytest.raises(UserError, match="only a `generator` takes"):
        ModelLoader(pinned={uri: resolve(uri, adapter=True)}).encoder(uri)
    for change, says in [
        ({"peft_type": "IA3"}, "kind IA3"),
        ({"megatron_config": {"a": 1}}, "Megatron"),
        ({"base_model_name_or_path": None}, "for which base"),
        ({"base_model_name_or_path": str(adapter)}, "only a `generator` takes"),
    ]:
        (adapter / adapters.CONFIG).write_text(json.dumps(config | change))
        with pytest.raises(UserError, match=says):
            resolve(uri, adapter=True)
    (adapter / adapters.CONFIG).write_text("[")
    with pytest.raises(RunError, match="no description of an adapter"):
        resolve(uri, adapter=True)
    (adapter / adapters.CONFIG).write_text(json.dumps(config | {"r": 3}))
    with pytest.raises(RunError, match="not for its base"):
        ModelLoader().generator(uri)
    (adapter / adapters.CONFIG).write_text(json.dumps(config))
    (adapter / adapters.WEIGHTS).rename(adapter / "adapter_model.bin")
    with pytest.raises(UserError, match=r"no adapter_model\.safetensors"):
        resolve(uri, adapter=True)


def test_a_registered_adapter_finds_its_registered_base(
    base: Path, tmp_path: Path, registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bizllm.models.batches.placement", lambda *_: ("cpu", "float32"))  # bfloat16 rounds otherwise
    adapter, merged = made(base, tmp_path, 1)
    models = Registry(registry)
    on = models.register("base", base, metrics={}, params={}, tags={})
    write_info(adapter, ModelInfo("a", "causal_lm", base="registry:base@1", base_hash=on.content_hash or ""))
    models.register("writer", adapter, metrics={}, params={}, tags={})
    pin = resolve("registry:writer@1", registry=registry, adapter=True)
    assert pin.on is not None and pin.on.uri == "registry:base@1"
    generator = ModelLoader(pinned={"registry:writer": pin}).generator("registry:writer")
    assert generator.generate(ASKED, 6).texts == Generator.load(merged).generate(ASKED, 6).texts
