import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from bizllm.models.encoder import Encoder
from bizllm.models.engines.torch_engine import TorchEngine, exact
from bizllm.models.load import ModelLoader, resolve

TEXTS = [
    "The parcel never came.",
    "ok",
    "A much longer complaint about a kettle that leaked, then smoked, and was never taken back by the shop.",
    "电池不好",
    "",
    "ok",
]


@pytest.fixture(scope="module")
def folder():
    return resolve("builtin:minilm").folder


@pytest.fixture(scope="module")
def encoder(folder):
    return Encoder.load(folder, exact)


@pytest.fixture(scope="module")
def plain(folder):
    """One text at a time, unpadded, as the model's card says: mean of the last hidden states, length 1."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def encode(text, **tokens):
        with torch.no_grad():
            hidden = model(**(tokens or tokenizer(text, return_tensors="pt"))).last_hidden_state[0]
        return torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy(), len(hidden)

    return encode


def test_equals_the_plain_forward_whatever_the_padding(encoder, plain):
    vectors, counts = encoder.encode_counted(TEXTS)
    expected = [plain(text) for text in TEXTS]
    assert vectors.dtype == np.float32 and vectors.shape == (6, 384)
    np.testing.assert_allclose(vectors, [v for v, _ in expected], atol=2e-6)
    assert counts.tolist() == [n for _, n in expected]


def test_duplicates_are_read_once_and_order_changes_nothing(encoder):
    vectors, tokens = encoder.encode(TEXTS)
    _, once = encoder.encode(sorted(set(TEXTS)))
    assert tokens == once
    np.testing.assert_array_equal(vectors[1], vectors[5])
    np.testing.assert_array_equal(encoder.encode(TEXTS[::-1])[0], vectors[::-1])


def test_a_long_text_is_windowed_not_truncated(encoder, plain):
    text = "the battery is weak " * 100 + "the parcel never came " * 100
    vectors, counts = encoder.encode_counted([text])
    ids = encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    windows = [[101, *part.tolist(), 102] for part in np.array_split(ids, -(-len(ids) // 254))]
    assert max(map(len, windows)) <= 256 and counts[0] == sum(map(len, windows))
    parts = [
        plain(None, input_ids=torch.tensor([w]), attention_mask=torch.ones(1, len(w), dtype=torch.long))[0]
        for w in windows
    ]
    pooled = np.average(parts, axis=0, weights=[len(w) for w in windows])
    np.testing.assert_allclose(vectors[0], pooled / np.linalg.norm(pooled), atol=2e-6)


def test_bfloat16_keeps_the_direction(encoder, folder):
    half = Encoder.load(folder, lambda network: TorchEngine(network, "cpu", "bfloat16"))
    cosine = (half.encode(TEXTS)[0] * encoder.encode(TEXTS)[0]).sum(1)
    assert cosine.min() >= 0.9999


def test_no_text_no_vector(encoder):
    vectors, tokens = encoder.encode([])
    assert vectors.shape == (0, 384) and tokens == 0


def test_a_loader_loads_once():
    loader = ModelLoader()
    assert loader.encoder("builtin:minilm") is loader.encoder("builtin:minilm")
