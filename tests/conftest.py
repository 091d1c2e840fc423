"""Fixtures that several parts of the tests share."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

# What starts a Ray. `.ci/tests` runs nights in one process, and beside them all else, then trainings and clouds.
WITH_RAY = ("chaos", "infer", "infra/test_aws.py", "jobs", "train/test_launch.py")


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.path.relative_to(Path(__file__).parent)
        starts = any(place.is_relative_to(one) for one in WITH_RAY)
        if starts or "local_ray" in getattr(item, "fixturenames", ()):
            item.add_marker("ray")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A private Ray of this process, which every run in it then uses."""
    import ray

    ray.init(address="local", num_cpus=2, object_store_memory=200_000_000, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Address of an S3 server of its own process, which keeps everything in memory and knows no access rights.

    For the session, AWS_ENDPOINT_URL and the other AWS variables point the whole process and its children at it.
    BIZLLM_TEST_S3 names a store that is there instead, with the keys testing and testing.
    """
    with _aws_server(os.environ.get("BIZLLM_TEST_S3", "")) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def own_aws() -> Iterator[str]:
    """Another such server for the tests of one file, which may have it check access rights."""
    with _aws_server() as endpoint:
        yield endpoint


@contextmanager
def _aws_server(endpoint: str = "") -> Iterator[str]:
    """Of its own process, or the one that is at `endpoint`."""
    server = None
    if not endpoint:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        endpoint = f"http://127.0.0.1:{port}"
    settings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in settings}
    try:
        if server is not None:
            _await(endpoint, server)
        os.environ.update(settings)
        yield endpoint
    finally:
        if server is not None:
            server.terminate()
            server.wait(timeout=10)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """`postgresql://…` of a database in a server of its own, for the session."""
    from tests.postgres import analytics

    with analytics() as url:
        yield url


@pytest.fixture
def azurite(monkeypatch: pytest.MonkeyPatch) -> str:
    """`abfs://CONTAINER@devstoreaccount1` of a new container in the Azurite that `make test-azurite` has started."""
    endpoint = os.environ.get("BIZLLM_TEST_AZURITE")
    if not endpoint:
        pytest.skip("make test-azurite starts one")
    from azure.storage.blob import BlobServiceClient

    # The emulator's only key, which its manual prints.
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    monkeypatch.setenv("AZURE_STORAGE_KEY", key)
    monkeypatch.setenv("BIZLLM_AZURE_ENDPOINT", endpoint)
    name = f"lake-{uuid.uuid4().hex[:12]}"
    service = BlobServiceClient(endpoint, credential={"account_name": "devstoreaccount1", "account_key": key})
    service.create_container(name)
    return f"abfs://{name}@devstoreaccount1"


@pytest.fixture(scope="session")
def small_generator(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small model, `causal` or `seq2seq`, that answers "cat mill tea so" with "cat tea".

    It knows these words: lid box cat tea mill lamp desk rain, and 12 of them at most; it reads over full stops and line
    ends. It has 40 learned positions: a wrong position, mask or format gives a wrong answer. Taught in seconds.
    """

    @cache
    def folder(kind: str) -> Path:
        made = tmp_path_factory.mktemp(kind)
        tokenizer = _word_tokenizer()
        model = _teach_first_and_last(kind, tokenizer)
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        return made

    return folder


def _word_tokenizer() -> Any:
    """Byte-pair encoding with a token for each word; <end> ends a text and pads, as in GPT-2."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.BPE(unk_token="<unk>"))
    plain.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"[\s.]+"), " "), normalizers.Strip()])
    plain.pre_tokenizer, plain.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "<end>", "<user>"])
    plain.train_from_iterator(["lid box cat tea mill lamp desk rain so"] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>", eos_token="<end>")


def _teach_first_and_last(kind: str, tokenizer: Any) -> Any:
    import torch
    from transformers import BartConfig, BartForConditionalGeneration, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    end, causal = tokenizer.eos_token_id, kind == "causal"
    settings: dict[str, Any] = {"vocab_size": len(tokenizer), "eos_token_id": end, "bos_token_id": end}
    if causal:
        settings |= {"n_positions": 40, "n_embd": 48, "n_layer": 2, "n_head": 4, "initializer_range": 0.05}
        settings |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        model: Any = GPT2LMHeadModel(GPT2Config(**settings))
    else:
        for side in ("encoder", "decoder"):
            settings |= {f"{side}_layers": 2, f"{side}_attention_heads": 4, f"{side}_ffn_dim": 96}
        settings |= {"pad_token_id": end, "decoder_start_token_id": end, "forced_eos_token_id": None}
        settings |= {"max_position_embeddings": 40, "d_model": 48, "dropout": 0.0, "init_std": 0.05}
        model = BartForConditionalGeneration(BartConfig(**settings))

    def padded(rows: list[list[int]], pad: int) -> torch.Tensor:
        width = max(map(len, rows))
        return torch.tensor([row + [pad] * (width - len(row)) for row in rows])

    rng = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(150):
        asked, told = [], []
        for _ in range(32):
            words = rng.choices(["lid", "box", "cat", "tea", "mill", "lamp", "desk", "rain"], k=rng.randint(2, 12))
            asked.append(tokenizer(" ".join([*words, "so"]))["input_ids"])
            told.append([*tokenizer(f"{words[0]} {words[-1]}")["input_ids"], end])
        if causal:
            ids = [a + b for a, b in zip(asked, told, strict=True)]
            told = [[-100] * len(a) + b for a, b in zip(asked, told, strict=True)]
        else:
            ids = asked
        mask = padded([[1] * len(row) for row in ids], 0)
        loss = model(input_ids=padded(ids, end), attention_mask=mask, labels=padded(told, -100)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.fixture(scope="session")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes the folder of a small BERT as fine-tuning leaves it: `fine_tuned(objective=…, labels=…, …)`, of ModelInfo.

    Its weights are a formula, so they are the same everywhere. layers: of the encoder. weights(name, parameter): other
    values for a parameter, or None. WordPiece with the words of `words`, letters, punctuation, some Chinese.
    """

    def make(layers: int = 2, weights: Any = None, words: str = "the lamp kettle is broken", **info: Any) -> Path:
        import torch
        from transformers import BertConfig, BertModel, BertTokenizerFast

        from bizllm.models.network import new_network, save_network
        from bizllm.models.saved import ModelInfo, write_info

        letters = [*"abcdefghijklmnopqrstuvwxyz0123456789"]
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words.split(), *letters, *(f"##{c}" for c in letters)]
        tokens += [*".,!?'-()水壶漏了张三在北京买灯，。！"]
        made = tmp_path_factory.mktemp("model")
        tokenizer = BertTokenizerFast(vocab={token: i for i, token in enumerate(tokens)})
        size = {"hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 32}
        BertModel(BertConfig(vocab_size=len(tokens), max_position_embeddings=64, **size)).save_pretrained(made / "base")
        model = ModelInfo("tiny", **{"pooling": "mean", "max_tokens": 32, **info})
        network = new_network(made / "base", model, dropout=0.0)
        for number, (name, parameter) in enumerate(network.named_parameters()):
            if "LayerNorm" not in name:
                turns = torch.arange(parameter.numel()) * 0.618 + number
                parameter.data = (0.8 * torch.sin(turns * turns)).reshape(parameter.shape)
            other = weights(name, parameter.data) if weights else None
            parameter.data = parameter.data if other is None else other
        folder = made / "model"
        save_network(network, folder)
        tokenizer.save_pretrained(folder)
        write_info(folder, model)
        return folder

    return make


def _await(endpoint: str, server: subprocess.Popen[bytes], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        assert server.poll() is None, "the S3 server ended"
        try:
            urllib.request.urlopen(endpoint, timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"no S3 server within {within_s} s")
