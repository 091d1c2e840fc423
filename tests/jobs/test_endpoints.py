"""A job whose generator is an HTTP endpoint: faults of the file, and nights with it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bizllm import api
from bizllm.errors import UserError
from bizllm.jobs import prepare as prepare_module
from bizllm.jobs.job import load_job
from bizllm.jobs.prepare import PreparedStep, prepare
from tests.openai_server import Asked, Say, Server, serving

DAY = "2026-06-30"
TEXTS = [
    "The lid leaks. It came on Monday.",
    "盖子漏水。周一送到的。",
    "The lid leaks. It came on Monday.",
    None,
    "poison",
]
JOB = """
name: j
warehouse: {{path: ../out/warehouse}}
sources:
  tickets: {{path: tickets.parquet, key: [id]}}
models:
  writer: {model}
steps:
  note: {{task: summarize, input: tickets, text: body, generator: writer, reject_budget: 0.5}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "jobs"
    made.mkdir()
    pq.write_table(pa.table({"id": range(len(TEXTS)), "body": TEXTS}), made / "tickets.parquet")
    return made


def written(folder: Path, model: str) -> str:
    (folder / "j.yaml").write_text(JOB.format(model=model))
    return str(folder / "j.yaml")


def note(job: str, *sets: str) -> PreparedStep:
    return prepare(load_job(job, sets), date.fromisoformat(DAY)).steps["note"]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("{model: m}", r"j.yaml:7 models.writer.endpoint: 'endpoint' is missing"),
        ("{endpoint: llm.internal, model: m}", r"models.writer.endpoint: 'llm.internal': expected an address such as"),
        ("{endpoint: 'https://h/v1', model: m, api_key: sk-1}", r"models.writer.api_key: unknown key 'api_key'"),
        ("{endpoint: 'https://h/v1', model: m, key_env: sk-1}", r"models.writer.key_env: expected the name of an env"),
        ("{endpoint: 'https://h/v1', model: m, key_env: '${LLM_KEY}'}", r"models.writer.key_env: expected the name"),
        ("{endpoint: 'https://u:pw1@h/v1', model: m}", r"models.writer.endpoint: holds a password"),
        ("'openai:m@https://u:pw1@h/v1'", r"models.writer: holds a password"),
        ("{endpoint: 'https://h/v1', model: m, timeout_s: 0}", r"models.writer.timeout_s: 0: expected"),
        ("{endpoint: 'https://h/v1', model: m, max_token: 9}", r"did you mean 'max_tokens'"),
        ("{endpoint: 'https://h/v1', model: m, key_env: NO_SUCH_KEY}", r"note.generator: 'NO_SUCH_KEY': no such env"),
        ("'https://h/v1'", r"models.writer: 'https://h/v1': .*put openai:MODEL@ before"),
    ],
)
def test_a_fault_names_its_place_and_no_secret(
    folder: Path, model: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_KEY", "sk-2")
    with pytest.raises(UserError, match=said) as fault:
        note(written(folder, model))
    assert not any(secret in str(fault.value) for secret in ("sk-1", "sk-2", "pw1"))


def test_an_endpoint_is_asked_as_no_encoder_and_by_no_engine(folder: Path) -> None:
    job = written(folder, "openai:m@http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match=r"steps.note.engine: 'torch': .*generator is an endpoint"):
        note(job, "steps.note.engine=torch")
    (folder / "j.yaml").write_text((folder / "j.yaml").read_text().replace("generator: writer", "model: writer"))
    with pytest.raises(UserError, match=r"steps.note.model: 'openai:m@http://127.0.0.1:9/v1': .*only a `generator`"):
        note(job)


def test_the_fingerprint_knows_what_decides_and_neither_key_nor_price(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fingerprint(more: str = "") -> str:
        step = note(written(folder, f"{{endpoint: 'https://h/v1', model: m{more}}}"))
        assert step.model == "openai:m@https://h/v1"
        return step.fingerprint

    monkeypatch.setenv("LLM_KEY", "sk-2")
    plain = fingerprint()
    assert plain == fingerprint(", key_env: LLM_KEY, input_price: 3, concurrency: 2, timeout_s: 9")
    assert len({plain, fingerprint(", revision: july"), fingerprint(", max_tokens: 999")}) == 3
    assert plain == note(written(folder, "openai:m@https://h/v1")).fingerprint, "both ways to write it"


def test_a_changed_template_rebuilds_the_night(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = written(folder, "openai:m@https://h/v1")
    before = note(job).fingerprint
    monkeypatch.setattr(prepare_module, "prompt_source", lambda name: f"another {name}")
    assert note(job).fingerprint != before
    plain = (folder / "j.yaml").read_text().replace("generator: writer, ", "")
    (folder / "j.yaml").write_text(plain)
    changed = note(job).fingerprint
    monkeypatch.undo()
    assert note(job).fingerprint == changed, "it is no part of a step that asks no generator"


@pytest.fixture
def server() -> Iterator[Server]:
    def answer(prompt: str, _: Asked) -> Say | str:
        if "poison" in prompt:
            return Say(status=400, body={"error": {"code": "content_filter", "message": prompt}})
        return "盖子漏水。" if "盖子" in prompt else "The lid leaks."

    with serving(answer) as made:
        yield made


def test_what_travels_to_workers_holds_no_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_KEY", "sk-2")
    step = note(written(folder, "{endpoint: 'https://h/v1', model: m, key_env: LLM_KEY}"))
    assert b"sk-2" not in pickle.dumps((step.task, step.pinned, step.settings))


def test_nights_are_priced_rejects_are_rows_and_answers_are_asked_for_once(
    folder: Path, server: Server, local_ray: None
) -> None:
    said = f"{{endpoint: '{server.address}', model: small, input_price: 1000, output_price: 5000}}"
    job = written(folder, said)
    (planned,) = api.plan(job, date=DAY).steps
    assert planned.cost == pytest.approx(((planned.tokens - 5 * 64) * 1000 + 5 * 64 * 5000) / 1e6)
    night = api.run(job, date=DAY)
    (step,) = night.steps
    assert (step.state, step.rows_in, step.rows_out, step.rows_rejected) == ("done", 5, 3, 2)
    assert len(server.asked) == 3, "equal rows are asked once"
    rows = {row["id"]: row for row in api.show(job, "note").to_pylist()}
    assert [rows[i]["summary"] for i in range(3)] == ["The lid leaks.", "盖子漏水。", "The lid leaks."]
    assert rows[0]["model"] == f"openai:small@{server.address}"
    rejects = api.show(job, sql="select id, code, message from note__rejects order by id").to_pylist()
    assert [(row["id"], row["code"]) for row in rejects] == [(3, "empty"), (4, "refused")]
    read = sum(len(prompt.split()) for prompt in server.prompts if "poison" not in prompt)
    written_tokens = 4 + 2  # "The lid leaks." and the Chinese one, each with an end
    assert step.cost == pytest.approx((read * 1000 + written_tokens * 5000) / 1e6)
    assert step.tokens == read + written_tokens
    (ledger,) = [row for row in api.runs(job) if row["step"] == "note"]
    assert ledger["cost"] == pytest.approx(step.cost)
    assert not any("poison" in row["message"] for row in rejects)

    added = pa.table({"id": [*range(len(TEXTS)), 9], "body": [*TEXTS, "A new one."]})
    pq.write_table(added, folder / "tickets.parquet")
    before = len(server.asked)
    again = api.run(job, date="2026-07-01").steps[0]
    assert again.rows_reused == 3 and len(server.asked) == before + 2, "the new text, and the rejected one"


def test_an_endpoint_that_is_down_fails_the_step_and_says_so(folder: Path, local_ray: None) -> None:
    with serving(lambda *_: Say(status=503)) as server:
        job = written(folder, f"{{endpoint: '{server.address}', model: small, patience_s: 0.5}}")
        step: Any = api.run(job, date=DAY).steps[0]
    assert step.state == "failed" and "gave no answer for" in step.error and "HTTP 503" in step.error
    assert not any(text and text in step.error for text in TEXTS)
