"""Engines: each says what torch says in float32, one that does not is not used, and none loses a window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bizllm.models import batches
from bizllm.models.batches import Floats, Whole, Windows
from bizllm.models.classifier import Classifier
from bizllm.models.encoder import Encoder
from bizllm.models.engines import choice, onnx_engine, openvino_engine
from bizllm.models.engines.agreement import agreement
from bizllm.models.engines.base import Engine, Network, all_answers
from bizllm.models.engines.choice import Choice, Wanted, choose, engine_of
from bizllm.models.engines.packed_engine import PackedEngine
from bizllm.models.engines.torch_engine import TorchEngine, exact
from bizllm.models.fine_tuned import FineTuned
from bizllm.models.load import resolve
from bizllm.models.network import PooledModel
from bizllm.models.tagger import Tagger

Make = Callable[..., Path]
WORDS = ["the", "lamp", "kettle", "is", "broken", "水壶", "漏了", ".", ",", "a", "b", "c"]
CONVERTERS = {"openvino": openvino_engine, "onnxruntime": onnx_engine}
MODELS: dict[str, tuple[type[FineTuned], dict[str, Any]]] = {
    "mean": (Classifier, {"objective": "classification", "labels": ("x", "y", "z"), "pooling": "mean"}),
    "cls": (Classifier, {"objective": "multi_label", "labels": ("x", "y", "z"), "pooling": "cls"}),
    "last": (Classifier, {"objective": "regression", "pooling": "last", "horizon": 3}),
    "native pair": (
        Classifier,
        {"objective": "pair", "labels": ("x", "y"), "pooling": "native", "inputs": "pair"},
    ),
    "tags": (Tagger, {"objective": "token_classification", "labels": ("O", "B", "I"), "pooling": "native"}),
}


@pytest.fixture(scope="module")
def converted(minilm: tuple[Network, Windows], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as OpenVINO has it."""
    folder = tmp_path_factory.mktemp("openvino")
    openvino_engine.convert(minilm[0], folder)
    return folder


def texts(count: int, most: int = 40) -> list[str]:
    rng = np.random.default_rng(count)
    return [" ".join(rng.choice(WORDS, rng.integers(1, most))) for _ in range(count)]


@pytest.fixture(scope="module")
def minilm() -> tuple[Network, Windows]:
    """The built-in encoder's network, and windows of mixed lengths."""
    found: list[Network] = []
    encoder = Encoder.load(resolve("builtin:minilm").folder, lambda network: found.append(network) or exact(network))
    said = ["Where is my parcel?", "The kettle leaks and I want my money back, please.", "ok", "电池不好"]
    asked = [" ".join(said[(i + j) % 4] for j in range(1 + i % 12)) for i in range(96)]
    return found[0], batches.text_windows(encoder.tokenizer, asked, encoder.max_tokens)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", CONVERTERS)
def test_a_converted_network_says_what_torch_says(fine_tuned: Make, tmp_path: Path, name: str, model: str) -> None:
    kind, info = MODELS[model]
    folder = fine_tuned(**info)

    def converted(network: Network) -> Engine:
        CONVERTERS[name].convert(network, tmp_path)
        made: Engine = CONVERTERS[name].Converted(network, tmp_path, "float32", 2)
        return made

    one, other = kind.load(folder, exact), kind.load(folder, converted)
    asked = texts(50, 90)
    if model == "tags":
        assert isinstance(one, Tagger) and isinstance(other, Tagger)
        words = [[word for text in tagger.tags(asked)[0] for word in text] for tagger in (one, other)]
        assert [word.tag for word in words[0]] == [word.tag for word in words[1]]
        probabilities = [[word.probability for word in found] for found in words]
        np.testing.assert_allclose(probabilities[0], probabilities[1], atol=1e-4)
        return
    assert isinstance(one, Classifier) and isinstance(other, Classifier)
    second = texts(50)[::-1] if "pair" in model else None
    (expected, tokens), (found, read) = (engine.logits(asked, second) for engine in (one, other))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert (tokens == read).all()


@pytest.mark.parametrize("model", ["mean", "cls", "last", "pair"])
def test_packed_rows_say_what_padded_rows_say(fine_tuned: Make, model: str) -> None:
    """In bfloat16, as torch says it in bfloat16; what each row reads of the others is nothing."""
    kind, info = MODELS.get(model, MODELS["native pair"])
    folder = fine_tuned(**{**info, "pooling": "mean" if model == "pair" else info["pooling"]})
    packed = kind.load(folder, lambda network: PackedEngine(network, "cpu", compiled=False))
    padded = kind.load(folder, lambda network: TorchEngine(network, "cpu", "bfloat16"))
    assert isinstance(packed, Classifier) and isinstance(padded, Classifier)
    second = texts(50)[::-1] if model == "pair" else None
    packed.engine.budget, padded.engine.budget = 300, 1
    (found, read), (expected, tokens) = (engine.logits(texts(50, 90), second) for engine in (packed, padded))
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())
    assert (tokens == read).all() and packed.engine.precision == "bfloat16"


def test_packed_positions_begin_where_the_backbone_has_them() -> None:
    """RoBERTa counts from behind its padding token."""
    import torch
    from transformers import RobertaConfig, RobertaModel

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = RobertaConfig(vocab_size=50, max_position_embeddings=40, initializer_range=0.3, **shape)
    module = PooledModel(RobertaModel(config, add_pooling_layer=False), "mean", 0).eval()
    network = Network(lambda: module, ("input_ids", "attention_mask"), config.pad_token_id, "vectors")
    rng = np.random.default_rng(0)
    ids = [rng.integers(3, 50, n).tolist() for n in (5, 1, 30, 12)]
    windows = Windows.of(ids, np.arange(4))
    found = all_answers(PackedEngine(network, "cpu", compiled=False), network, windows)
    for one, other in zip(all_answers(exact(network), network, windows), found, strict=True):
        assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.999


def test_packed_refuses_what_it_cannot_read(fine_tuned: Make, minilm: tuple[Network, Windows], tmp_path: Path) -> None:
    for model in ("native pair", "tags"):
        kind, info = MODELS[model]
        with pytest.raises(ValueError, match="does not read packed rows"):
            kind.load(fine_tuned(**info), lambda network: PackedEngine(network, "cpu"))
    network, windows = minilm
    made = choose(network, windows.take(np.arange(8)), Wanted("packed", "float32"), tmp_path, 1)
    assert made.engine == "torch" and made.fell_back == ("packed is for GPUs",)


def test_on_a_gpu_packed_is_tried_beside_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "placement", lambda *_: ("cuda", "bfloat16"))
    assert choice.tiers(Wanted())[0] == [("packed", "bfloat16"), ("torch", "bfloat16")]
    assert choice.tiers(Wanted("packed"))[0] == [("packed", "bfloat16")]
    assert choice.tiers(Wanted(precision="float32")) == [[("torch", "float32")]]
    assert choice.tiers(Wanted("openvino"))[0] == [("torch", "bfloat16")]


@pytest.mark.parametrize("budget", [1, 100, 10_000])
def test_batches_change_nothing(minilm: tuple[Network, Windows], converted: Path, budget: int) -> None:
    network, windows = minilm
    reference = np.stack(all_answers(exact(network), network, windows))
    for threads in (1, 3):
        engine = openvino_engine.Converted(network, converted, "float32", threads)
        engine.budget = budget
        read = [row for rows, _ in engine.outputs(windows) for row in rows.tolist()]
        assert sorted(read) == list(range(len(windows)))
        np.testing.assert_allclose(np.stack(all_answers(engine, network, windows)), reference, atol=2e-5)


def test_low_precision_agrees(minilm: tuple[Network, Windows], converted: Path) -> None:
    """bfloat16 within the tolerance that engines are held to; where the machine has none, it computes in float32."""
    network, windows = minilm
    reference = all_answers(exact(network), network, windows)
    low = openvino_engine.Converted(network, converted, "bfloat16", 1)
    for engine in (low, TorchEngine(network, "cpu", "bfloat16")):
        assert agreement("vectors", reference, all_answers(engine, network, windows)).enough


@pytest.mark.parametrize("name", CONVERTERS)
def test_int8_is_quantized_and_told_apart(minilm: tuple[Network, Windows], tmp_path: Path, name: str) -> None:
    network, windows = minilm
    plain, low = tmp_path / "plain", tmp_path / "low"
    plain.mkdir(), low.mkdir()
    CONVERTERS[name].convert(network, plain)
    reference, sizes = all_answers(exact(network), network, windows), []
    for spare in (False, True):
        CONVERTERS[name].quantize(network, plain, low, windows, spare)
        engine = CONVERTERS[name].Converted(network, low, "int8", 2)
        found = agreement("vectors", reference, all_answers(engine, network, windows))
        assert 0.9 < found.value < 0.9999 and not found.enough
        sizes.append(sum(f.stat().st_size for f in low.iterdir()))
    assert sizes[0] < sizes[1] < 0.8 * sum(f.stat().st_size for f in plain.iterdir())


def test_the_fastest_that_agrees_is_chosen(minilm: tuple[Network, Windows], tmp_path: Path) -> None:
    network, windows = minilm
    made = choose(network, windows, Wanted(), tmp_path, 1)
    assert made.tried[f"{made.engine} {made.precision}"] == max(made.tried.values())
    assert {name.partition(" ")[0] for name in made.tried} == {"openvino", "torch"}
    assert "least cosine" in made.agreement and not made.fell_back
    assert Choice.from_json(made.to_json()) == made
    engine = engine_of(made, network, tmp_path / made.files, 1)
    assert (engine.name, engine.precision, engine.budget) == (made.engine, made.precision, made.budget)
    assert agreement(
        "vectors", all_answers(exact(network), network, windows), all_answers(engine, network, windows)
    ).enough


@pytest.mark.slow  # int8 alone is tested above
def test_what_was_asked_for_and_does_not_agree_falls_back(minilm: tuple[Network, Windows], tmp_path: Path) -> None:
    network, windows = minilm
    made = choose(network, windows, Wanted("openvino", "int8"), tmp_path, 1)
    assert made.engine == "openvino" and made.precision != "int8"
    assert len(made.fell_back) == 1 and "openvino int8 does not agree (least cosine 0.9" in made.fell_back[0]
    assert made.fell_back[0] in str(made)


def test_what_cannot_be_had_falls_back(
    minilm: tuple[Network, Windows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such operation: secret text")

    monkeypatch.setattr(openvino_engine, "convert", broken)
    made = choose(*minilm, Wanted("openvino"), tmp_path, 1)
    assert made.engine == "torch" and not made.files
    assert all("can't be had (RuntimeError" in why and "secret" not in why for why in made.fell_back)


def test_an_engine_that_says_something_else_is_not_used(
    minilm: tuple[Network, Windows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(openvino_engine.Converted):
        def outputs(self, windows: Windows) -> Iterator[tuple[Whole, Floats]]:
            for rows, said in super().outputs(windows):
                yield rows, np.roll(said, 1, axis=1)

    monkeypatch.setattr(openvino_engine, "Converted", Wrong)
    made = choose(*minilm, Wanted(), tmp_path, 1)
    assert made.engine == "torch" and "openvino" in made.fell_back[0] and "does not agree" in made.fell_back[0]


def test_on_another_machine_torch_computes(
    minilm: tuple[Network, Windows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, _ = minilm
    made = Choice("openvino", "float32", 64, "another processor", 1, 1.0, "", "openvino")
    assert engine_of(made, network, tmp_path, 1).name == "torch"
    assert engine_of(None, network, None, 1).name == "torch"


def test_agreement_counts_what_people_see() -> None:
    one = [np.array([1.0, 2.0, -1.0], np.float32)] * 199 + [np.array([0.0, 1.0, 1.1], np.float32)]
    other = [row + np.float32(0.2) for row in one[:-1]] + [np.array([0.0, 1.2, 1.1], np.float32)]
    assert agreement("classes", one, other).value == 0.995 and agreement("classes", one, other).enough
    assert agreement("classes", one[1:], other[1:]).enough is False
    assert agreement("labels", one, other, cut=1.15).value == 0.0  # 1.0 became 1.2
    assert agreement("labels", one, other, cut=1.6).value == 1.0
    assert agreement("numbers", one, other).value < 0.995
    tags = [np.eye(3, dtype=np.float32)[[0, 1, 2, 2]], np.eye(3, dtype=np.float32)[[1]]]
    assert agreement("tags", tags, [tags[0], tags[0][:1]]).value == 0.8
    broken = [np.full(3, np.nan, np.float32)] * 200
    assert not any(agreement(kind, one, broken).enough for kind in ("classes", "labels", "numbers", "vectors"))


def test_the_sample_is_bounded_and_the_same_each_time() -> None:
    lengths = np.random.default_rng(0).integers(3, 257, 50_000)
    windows = Windows(np.zeros(int(lengths.sum()), np.int32), lengths, np.arange(50_000))
    chosen = choice._sampled(windows)
    assert lengths[chosen].sum() <= choice.SAMPLE_TOKENS and len(set(chosen.tolist())) == len(chosen)
    assert (chosen == choice._sampled(windows)).all()
    whole = Windows(np.zeros(40_000, np.int32), np.array([40_000]), np.arange(1))
    assert choice._sampled(whole).tolist() == [0]


def test_labels_are_compared_where_the_model_gives_them(fine_tuned: Make) -> None:
    """At the logit of its threshold, before logits are divided by the temperature."""
    found: list[Network] = []
    folder = fine_tuned(objective="multi_label", labels=("x", "y"), threshold=0.8, temperature=2.0)
    model = Classifier.load(folder, lambda network: found.append(network) or exact(network))
    asked = texts(200)
    probabilities, _ = model.probabilities(asked)
    logits, _ = model.logits(asked)
    assert 0 < (probabilities > 0.8).mean() < 1
    assert ((probabilities > 0.8) == (logits > found[0].cut)).all()
