"""The job file: what is read, where it stands, and every fault in one line."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, PositiveInt

from bizllm.errors import UserError
from bizllm.jobs import schema as schema_module
from bizllm.jobs.job import LoadedJob, load_job, run_date
from bizllm.jobs.schema import json_schema
from bizllm.jobs.training_file import is_training_file
from bizllm.jobs.yaml_places import parse_value
from bizllm.tasks import base
from tests.jobs.job_faults import GOOD, ONE_FAULT


class Rule(BaseModel):
    model_config = {"extra": "forbid"}
    when: str
    label: str


class ToySettings(base.TaskSettings):
    text: str = Field(description="The text column.")
    model: str = "builtin:minilm"
    horizon: PositiveInt = 3
    k: int | Literal["auto"] = "auto"
    on: bool = False
    levels: list[float] = Field(default=[0.1, 0.9])
    rules: list[Rule] = Field(default=[])


class Toy(base.Task):
    name, version, Settings, summary = "toy", 1, ToySettings, "A toy."


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("bizllm.tasks.toy")
    module.TASK = Toy  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bizllm.tasks.toy", module)
    monkeypatch.setattr(base, "task_names", lambda: ["forecast", "toy"])
    monkeypatch.setattr(schema_module, "task_names", lambda: ["toy"])


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LoadedJob]:
    """Load text as jobs/j.yaml, typed as a path relative to the working directory."""
    (tmp_path / "jobs").mkdir()
    monkeypatch.chdir(tmp_path)

    def load(text: str, *sets: str) -> LoadedJob:
        Path("jobs/j.yaml").write_text(text, encoding="utf-8")
        return load_job("jobs/j.yaml", sets)

    return load


@pytest.fixture
def faults(load: Callable[..., LoadedJob]) -> Callable[..., list[str]]:
    def faults(text: str, *sets: str) -> list[str]:
        with pytest.raises(UserError) as error:
            load(text, *sets)
        return str(error.value).splitlines()

    return faults


def test_a_job_is_read(load: Any, tmp_path: Path) -> None:
    loaded = load(GOOD)
    assert loaded.job.name == "shop"
    assert loaded.folder == tmp_path / "jobs"
    assert loaded.job.warehouse.path == str(tmp_path / "out")
    assert loaded.job.sources["tickets"].path == str(tmp_path / "jobs/data/tickets")
    notes = loaded.job.steps["notes"]
    assert isinstance(notes, ToySettings)
    assert notes.model == "builtin:minilm"
    assert notes.horizon == 3
    assert loaded.job.runtime.unit_rows is None and loaded.job.runtime.unit_mb == 64


def test_places_are_lines_of_the_file(load: Any) -> None:
    loaded = load(GOOD)
    assert loaded.place("steps", "notes", "text") == "jobs/j.yaml:14 steps.notes.text"
    assert loaded.place("sources", "tickets", "key", 0) == "jobs/j.yaml:7 sources.tickets.key[0]"
    assert loaded.place("steps", "notes", "levels") == "jobs/j.yaml:11 steps.notes.levels"  # not there: its step's line
    assert loaded.place() == "jobs/j.yaml:1"


# -- faults, one line each ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new", "line"), ONE_FAULT.values(), ids=ONE_FAULT.keys())
def test_a_fault_is_one_line_with_place_value_and_what_was_expected(faults: Any, old: str, new: str, line: str) -> None:
    assert GOOD.count(old) >= 1
    assert faults(GOOD.replace(old, new, 1)) == [f"jobs/j.yaml{line}"]


def test_every_fault_is_found_at_once_and_in_order(faults: Any) -> None:
    text = GOOD
    for old, new in [
        ("name: shop", "name: Shop"),
        ("Asia/Shanghai", "Mars/Base"),
        ("data/tickets", "${NOT_SET_ANYWHERE}"),
        ("key: [id]", "kex: [id]"),
        ("text: body", "text: 3"),
        ("model: encoder", "model: encodr"),
    ]:
        text = text.replace(old, new)
    found = faults(text + "  again: {task: toy, input: again, text: x}\n")
    assert [int(line.split(":")[1].split()[0]) for line in found] == [1, 2, 6, 7, 14, 15, 16]
    assert "again → again" in found[-1]


@pytest.mark.parametrize(
    ("edges", "circle"),
    [
        ({"a": "b", "b": "a"}, "a → b → a"),
        ({"a": "a"}, "a → a"),
        ({"z": "a", "a": "b", "b": "c", "c": "a"}, "a → b → c → a"),
    ],
)
def test_a_cycle_is_named_once(faults: Any, edges: dict[str, str], circle: str) -> None:
    steps = "".join(f"  {name}: {{task: toy, input: {input_}, text: x}}\n" for name, input_ in edges.items())
    (line,) = faults(GOOD + steps)
    assert line.endswith(f"these steps read each other in a circle: {circle}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: expected a mapping such as `name: …`; the file is empty"),
        ("- a\n", ":1: expected a mapping such as `name: …`; found a list"),
        ("a:\n\tb: 1\n", ":2:1: is not valid YAML: a tab; indent with spaces"),
        ("a: [1, 2\nb: 3\n", ":2:2: is not valid YAML: expected ',' or ']', but got ':'"),
        ("a: *b\n", ":1:4: is not valid YAML: undefined alias 'b'"),
        ("a: 1\n---\nb: 2\n", ":2:1: is not valid YAML: another document"),
        ("a: &x [*x]\n", ":1: is nested more than 50 deep, or in itself"),
        ("a: " + "[" * 2000 + "]" * 2000, ": is nested more than 50 deep"),
        ("a: \x01\n", ":1: is not valid YAML: the character U+0001"),
    ],
)
def test_what_is_no_yaml(faults: Any, text: str, message: str) -> None:
    assert faults(text) == [f"jobs/j.yaml{message}"]


def test_an_alias_bomb_is_harmless(faults: Any) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for i in range(1, 20):
        bomb += f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n"
    assert faults(bomb) == ["jobs/j.yaml: holds more than 50,000 values once its aliases are expanded"]


def test_files_that_are_none(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(UserError) as error:
            load_job(str(path))
        return str(error.value)

    (tmp_path / "latin.yaml").write_bytes("name: café".encode("latin-1"))
    (tmp_path / "big.yaml").write_bytes(b"#" * (1 << 20) + b"\n")
    assert message(tmp_path / "none.yaml") == f"{tmp_path}/none.yaml: no such file"
    assert message(tmp_path) == f"{tmp_path}: is a folder; expected a YAML file"
    assert message(tmp_path / "latin.yaml") == f"{tmp_path}/latin.yaml: is not UTF-8 text (byte 9)"
    assert message(tmp_path / "big.yaml") == f"{tmp_path}/big.yaml: is larger than 1 MiB; expected a job"


# -- environment and overrides ------------------------------------------------------------------------------------


def test_variables_are_text_never_yaml(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMN", "body, horizon: 9}\n- x")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("N", "7")
    text = GOOD.replace("text: body", 'text: "${COLUMN}"\n    horizon: ${N}\n    on: ${ON:-true}')
    notes = load(text).job.steps["notes"]
    assert (notes.text, notes.horizon, notes.on) == ("body, horizon: 9}\n- x", 7, True)
    assert load(GOOD.replace("body", "a$$b${EMPTY:-x}$c$${N}${EMPTY:-}")).job.steps["notes"].text == "a$bx$c${N}"


def test_a_fault_shows_the_variable_and_not_what_it_held(faults: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("N", "hunter2")
    (line,) = faults(GOOD.replace("text: body", "text: b\n    horizon: ${N}"))
    assert line == "jobs/j.yaml:15 steps.notes.horizon: '${N}': expected a whole number"


def test_secrets_may_come_from_the_environment(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "hunter2")
    text = "{path: o, catalog: sql, uri: 'postgresql://me:${PW}@db/x', properties: {s3.secret-access-key: '${PW}'}}"
    warehouse = load(GOOD.replace("{path: ../out}", text)).job.warehouse
    assert warehouse.uri == "postgresql://me:hunter2@db/x"
    assert warehouse.properties == {"s3.secret-access-key": "hunter2"}


def test_paths_are_relative_to_where_they_were_written(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKE", "lake")
    monkeypatch.setenv("ENDING", "end")

    def source(path: str, *sets: str) -> str:
        return str(load(GOOD.replace("data/tickets", f'"{path}"'), *sets).job.sources["tickets"].path)

    assert source("${LAKE}/t") == str(tmp_path / "lake/t")
    assert source("${LAKE:-x}") == str(tmp_path / "lake")
    assert source("${NOT_SET_ANYWHERE:-../x}/t") == str(tmp_path / "x/t")  # the default was written in the file
    assert source("in/${ENDING}") == str(tmp_path / "jobs/in/end")
    assert source("/abs/t") == "/abs/t"
    assert source("s3://bucket/t/") == "s3://bucket/t/"
    assert source("x", "sources.tickets.path=given") == str(tmp_path / "given")
    assert load(GOOD, "warehouse={path: wh}").job.warehouse.path == str(tmp_path / "wh")
    assert load(GOOD + "registry: sqlite:///m.db\n").job.registry == f"sqlite:///{tmp_path}/jobs/m.db"
    assert load(GOOD + "registry: http://host:5000\n").job.registry == "http://host:5000"


def test_a_model_of_a_folder_is_relative_to_where_it_was_written(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path / "jobs/m", tmp_path / "m"):
        folder.mkdir(parents=True)
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (folder / name).touch()
    monkeypatch.setenv("MODEL", "m")
    assert load(GOOD.replace("builtin:minilm", "path:m")).job.steps["notes"].model == f"path:{tmp_path}/jobs/m"
    assert load(GOOD.replace("builtin:minilm", "path:${MODEL}")).job.models["encoder"] == f"path:{tmp_path}/m"
    assert load(GOOD, "steps.notes.model=path:m").job.steps["notes"].model == f"path:{tmp_path}/m"


def test_overrides_are_yaml_and_have_their_own_place(load: Any, faults: Any) -> None:
    loaded = load(
        GOOD, "steps.notes.levels=[0.2, 5e-1]", "runtime.workers=2", "warehouse.properties.s3.region=x", "name=b"
    )
    assert loaded.job.steps["notes"].levels == [0.2, 0.5]
    assert loaded.job.runtime.workers == 2
    assert loaded.job.warehouse.properties == {"s3.region": "x"}
    assert loaded.place("steps", "notes", "levels") == "--set steps.notes.levels"
    assert loaded.place("steps", "notes", "text") == "jobs/j.yaml:14 steps.notes.text"
    assert faults(GOOD, "steps.notes.horizon=0") == ["--set steps.notes.horizon: 0: expected a number greater than 0"]
    assert faults(GOOD, "steps.notes.horizn=2") == [
        "--set steps.notes.horizn: unknown key 'horizn'; did you mean 'horizon'?"
    ]


def test_overrides_of_unknown_places_are_faults(faults: Any) -> None:
    assert faults(
        GOOD, "steps.note.horizon=1", "step.notes.horizon=1", "horizon", "steps.notes.text.x=1", "name=["
    ) == [
        "--set steps.note.horizon: no 'note' in the job's steps; did you mean 'notes'?",
        "--set step.notes.horizon: no 'step' in a job; did you mean 'steps'?",
        "--set: 'horizon': expected PLACE=VALUE, such as steps.sales.horizon=14",
        "--set steps.notes.text.x: steps.notes.text holds no further keys",
        "--set name: '[': is not valid YAML: expected the node content, but found '<stream end>'",
    ]


def test_merge_keys_and_aliases(load: Any) -> None:
    text = GOOD.replace("notes:", "notes: &n").replace(
        "    model: encoder\n", "    model: encoder\n  more: {<<: *n, text: title}\n"
    )
    more = load(text).job.steps["more"]
    assert (more.input, more.text) == ("tickets", "title")
    assert load(text).place("steps", "more", "text") == "jobs/j.yaml:16 steps.more.text"


# In YAML 1.1 U+2028 and U+2029 end a line, and a key is one line.
words = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]))
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=60, deadline=None)
@given(plain)
def test_json_is_read_as_json_reads_it(value: Any) -> None:
    assert parse_value(json.dumps(value, ensure_ascii=False), "x") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("12:30", "12:30"), ("007", "007"), ("1_000", 1000), ("0x1F", 31), ("-2.5", -2.5), ("", None)],
)
def test_numbers_mean_what_they_look_like(text: str, value: object) -> None:
    assert parse_value(text, "x") == value


# -- the graph of steps -------------------------------------------------------------------------------------------


def test_order_upstream_and_descendants(load: Any) -> None:
    steps = {"d": "c", "c": "b", "b": "tickets", "x": "b"}
    text = GOOD + "".join(f"  {name}: {{task: toy, input: {input_}, text: x}}\n" for name, input_ in steps.items())
    loaded = load(text)
    assert loaded.order() == ["notes", "b", "c", "d", "x"]
    assert loaded.upstream("d") == ["c"]
    assert loaded.upstream("b") == []
    assert loaded.descendants("b") == ["c", "d", "x"]
    assert loaded.descendants("d") == []


# -- the run date -------------------------------------------------------------------------------------------------


def test_the_run_date_is_yesterday_where_the_job_lives(load: Any) -> None:
    job = load(GOOD).job
    evening = datetime(2026, 3, 1, 16, 30, tzinfo=UTC)  # already 2 March in Shanghai
    assert run_date(job, None, evening) == date(2026, 3, 1)
    assert run_date(job, None, evening.replace(hour=15)) == date(2026, 2, 28)
    assert run_date(job, "2026-03-02", evening) == date(2026, 3, 2)
    with pytest.raises(UserError, match="--date: '2026-03-03': is in the future: today is 2026-03-02 in Asia/Shanghai"):
        run_date(job, "2026-03-03", evening)
    for bad in ("20260301", "2026-3-1", "2026-02-30", "yesterday", "2026-W01-1", "２０２６-03-01"):
        with pytest.raises(UserError, match="expected a date YYYY-MM-DD"):
            run_date(job, bad, evening)


# -- the schema for editors ---------------------------------------------------------------------------------------


def test_the_schema_accepts_what_loads_and_refuses_what_does_not(load: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(yaml.safe_load(GOOD))
    assert validator.is_valid(yaml.safe_load(GOOD.replace("text: body", "text: body\n    horizon: ${N}")))
    for bad in ("unknown key", "missing key", "wrong type", "word for number", "horizon 0", "unknown task", "runs"):
        old, new, _ = ONE_FAULT[bad]
        assert not validator.is_valid(yaml.safe_load(GOOD.replace(old, new, 1))), bad


FOLDER = Path(__file__).parents[2] / "jobs"
JOBS = [
    path for part in ("*", "real/*") for path in sorted(FOLDER.glob(f"{part}.yaml")) if not is_training_file(str(path))
]


@pytest.mark.parametrize("path", JOBS, ids=[str(path.relative_to(FOLDER)) for path in JOBS])
def test_the_project_s_own_jobs_load_and_fit_the_schema(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    monkeypatch.undo()  # the real tasks
    monkeypatch.setenv("BIZLLM_DATA", "/data")
    load_job(str(path))
    errors = jsonschema.Draft202012Validator(json_schema()).iter_errors(yaml.safe_load(path.read_text("utf-8")))
    assert [error.message for error in errors] == []


def test_an_unknown_schema_is_a_fault() -> None:
    with pytest.raises(UserError, match="expected one of job, finetune, compress; did you mean 'job'"):
        json_schema("jobs")


def test_the_committed_schema_is_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`bizllm schema > jobs/job.schema.json` writes it; editors find it through the first line of the jobs."""
    monkeypatch.undo()  # the real tasks
    committed = Path(__file__).parents[2] / "jobs" / "job.schema.json"
    assert json.loads(committed.read_text()) == json_schema("job")
