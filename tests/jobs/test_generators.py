"""A step with a generator, before any work: what computes it, and adapters pinned with their base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import peft
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from bizllm import api
from bizllm.errors import UserError
from bizllm.jobs.job import load_job
from bizllm.jobs.prepare import PreparedStep, prepare
from bizllm.models import adapters, vllm_writer
from bizllm.models.load import ModelLoader

JOB = """
name: j
warehouse: {path: ../out/warehouse}
sources:
  tickets: {path: tickets.parquet, key: [id]}
models: {writer: "path:adapter", encoder: "builtin:minilm"}
steps:
  note: {task: summarize, input: tickets, text: body, generator: writer}
"""


@pytest.fixture
def job(tmp_path: Path, small_generator: Callable[[str], Path]) -> Path:
    """A job's file with its source, an adapter and the adapter's base."""
    folder = tmp_path / "jobs"
    shutil.copytree(small_generator("causal"), folder / "base")
    (folder / "adapter").mkdir()
    said = {"peft_type": "LORA", "r": 4, "base_model_name_or_path": "../base"}
    (folder / "adapter" / adapters.CONFIG).write_text(json.dumps(said))
    (folder / "adapter" / adapters.WEIGHTS).write_bytes(b"weights")
    pq.write_table(pa.table({"id": [1], "body": ["The lid leaks."]}), folder / "tickets.parquet")
    (folder / "j.yaml").write_text(JOB)
    return folder / "j.yaml"


def note(job: Path, *sets: str) -> PreparedStep:
    return prepare(load_job(str(job), sets), date(2026, 6, 30)).steps["note"]


def test_an_adapter_is_pinned_with_its_base_and_both_decide_the_fingerprint(job: Path) -> None:
    first = note(job)
    (pin,) = first.pinned.values()
    assert pin.on is not None and pin.on.folder.samefile(job.parent / "base")
    assert first.model_version == pin.content_hash[:16]
    (job.parent / "base" / "generation_config.json").write_text("{}")
    second = note(job)
    (job.parent / "adapter" / adapters.WEIGHTS).write_bytes(b"others")
    assert len({first.fingerprint, second.fingerprint, note(job).fingerprint}) == 3


def test_steps_of_a_night_write_with_adapters_over_one_base(job: Path, local_ray: None) -> None:
    """Each as its adapter does in this process, and neither as the base or the other."""
    steps, expected = "", {}
    texts = [f"{one} {other} mill" for one in ("cat", "tea", "box", "desk") for other in ("lid", "rain", "lamp")]
    for seed in (1, 2):
        torch.manual_seed(seed)
        config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
        model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(job.parent / "base"), config)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(job.parent / f"a{seed}")
        asked = f"{{task: summarize, input: tickets, text: body, generator: 'path:a{seed}', prompt: '{{text}} so'"
        steps += f"  note{seed}: {asked}, max_new_tokens: 5, reject_budget: 1.0}}\n"
        writer = ModelLoader().generator(f"path:{job.parent / f'a{seed}'}")
        expected[seed] = dict(enumerate(writer.generate([f"{text} so" for text in texts], 5).texts))
    pq.write_table(pa.table({"id": range(len(texts)), "body": texts}), job.parent / "tickets.parquet")
    job.write_text(JOB[: JOB.index("steps:")] + "steps:\n" + steps)
    night = api.run(str(job), date="2026-06-30")
    assert [step.state for step in night.steps] == ["done", "done"]
    written = {seed: api.show(str(job), f"note{seed}").to_pylist() for seed in (1, 2)}
    for seed, rows in written.items():
        assert {row["id"]: row["summary"] for row in rows} == {i: text for i, text in expected[seed].items() if text}
    assert expected[1] != expected[2]


def test_an_adapter_is_no_encoder(job: Path) -> None:
    job.write_text(JOB.replace("generator: writer", "model: writer"))
    with pytest.raises(UserError, match=r"j.yaml:8 steps.note.model: .*only a `generator` takes"):
        note(job)


def test_vllm_is_for_generators_where_it_is_installed(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, torch = note(job), note(job, "steps.note.engine=torch")
    with pytest.raises(UserError, match=r"steps.note.engine: 'vllm': is not installed.*pip install 'bizllm\[vllm\]'"):
        note(job, "steps.note.engine=vllm")
    monkeypatch.setattr(vllm_writer, "installed", lambda: True)
    assert len({step.fingerprint for step in (plain, torch, note(job, "steps.note.engine=vllm"))}) == 3
    for engine in ("openvino", "packed"):
        with pytest.raises(UserError, match=r"steps\.note\.engine"):
            note(job, f"steps.note.engine={engine}")
    with pytest.raises(UserError, match="leaves `precision` open"):
        note(job, "steps.note.engine=vllm", "steps.note.precision=bfloat16")
    job.write_text(JOB.replace("generator: writer", "model: encoder"))
    with pytest.raises(UserError, match="is for steps with a `generator`"):
        note(job, "steps.note.engine=vllm")
