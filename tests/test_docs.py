"""What the papers promise is there: verbs, flags, settings, links, YAML examples, and the README's task."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from textwrap import indent
from typing import Any

import pyarrow as pa
import pytest
import typer.main
import yaml

from bizllm import api
from bizllm.cli import app
from bizllm.console import tasks as console_tasks
from bizllm.jobs.job import load_job
from bizllm.jobs.schema import json_schema
from bizllm.jobs.training_file import EvaluationFile, is_training_file, load_compression, load_evaluation, load_recipe
from bizllm.tasks.base import StepInput, Task, task_class, task_names
from bizllm.tasks.base import TaskSettings as Common
from bizllm.train.compression import Compression
from bizllm.train.recipe import Recipe
from bizllm.watch.metrics import OF_NIGHTS, OF_RUNS, Metric

ROOT = Path(__file__).parent.parent
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
PAPERS = [*READMES, *(ROOT / f"{name}.md" for name in ("CONTRIBUTING", "CHANGELOG", "SECURITY"))]
PAPERS += sorted(ROOT.glob("docs/**/*.md"))
TASKS = {name: ROOT / f"docs/tasks/{name}.md" for name in task_names()}
TASK_LIST = ROOT / "docs/tasks/README.md"
TRAINING = ROOT / "docs/finetune.md"
COMPRESSION = ROOT / "docs/compress.md"
MONITORING = ROOT / "docs/deploy/monitoring.md"
WITH_SETTINGS = [TASK_LIST, *TASKS.values(), TRAINING, COMPRESSION, MONITORING]
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]

each_paper = pytest.mark.parametrize("paper", PAPERS, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(paper: Path, language: str) -> list[str]:
    """The fenced blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", paper.read_text(), re.M | re.S)


def commands(paper: Path) -> Iterator[list[str]]:
    """Every `bizllm …` of a paper: in inline code, and in the shell and text blocks, with lines that go on."""
    text = paper.read_text()
    said = re.findall(r"(?<!`)`(bizllm [^`]+)`(?!`)", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))
    for block in [*blocks(paper, "sh"), *blocks(paper, "text")]:
        said += re.findall(r"^(?:\$ )?(bizllm (?:[^\"\n#]|\"[^\"]*\")*)", block.replace("\\\n", " "), re.M)
    for command in said:
        yield shlex.split(command.replace("…", ""))[1:]


@each_paper
def test_verbs_and_flags_exist(paper: Path) -> None:
    for words in commands(paper):
        if words[0].startswith("--"):
            assert words[0] in ("--help", "--version"), words
            continue
        command = COMMANDS.get(words[0])
        assert command is not None, f"`bizllm {words[0]}` is no verb"
        if sub := getattr(command, "commands", {}).get(words[1] if len(words) > 1 else ""):
            command = sub
        flags = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        used = {word.split("=")[0] for word in words if word.startswith("--")}
        assert used <= flags, f"`bizllm {shlex.join(words)}`: no {used - flags}"


def test_flags_named_alone_exist() -> None:
    ours = {o for c in COMMANDS.values() for p in c.params for o in p.opts} | {"--help"}
    foreign = {
        "--job",
        "--train",
        "--compress",
        "--runtime-env-json",
    }  # of the scripts in jobs/, and of `ray job submit`
    for paper in PAPERS:
        named = set(re.findall(r"`(--[a-z][a-z-]*)", paper.read_text()))
        assert named <= ours | foreign, f"{paper.name}: {named - ours - foreign}"


def test_scripts_of_ray_jobs_take_what_is_said() -> None:
    """In the papers, and in what the scripts say of themselves."""
    told = [(paper.name, block) for paper in PAPERS for block in blocks(paper, "sh")]
    told += [(script.name, script.read_text()) for script in ROOT.glob("jobs/*.py")]
    said = [
        (where, *found)
        for where, text in told
        for found in re.findall(r"python (jobs/\w+\.py) ([^\n#]+)", text.replace("\\\n", " "))
    ]
    assert {script for _, script, _ in said} == {f"jobs/{path.name}" for path in ROOT.glob("jobs/*.py")}
    for where, script, words in said:
        source = (ROOT / script).read_text()
        (*more, own), (verb,) = re.findall(r'add_argument\("(--\w+)"', source), re.findall(r'main\("(\w+)"', source)
        flags = {*more, own} | {option for parameter in COMMANDS[verb].params for option in parameter.opts}
        used = {word for word in shlex.split(words) if word.startswith("--")}
        assert {*more, own} <= used <= flags, f"{where}: {script}: {used - flags or own}"
        (file,) = re.findall(rf"{own} (\S+)", words)
        assert file == "FILE.yaml" or (ROOT / file).is_file(), f"{where}: {file}"


@each_paper
def test_links_resolve(paper: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", paper.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (paper.parent / name).resolve() if name else paper
        assert file.exists(), f"{paper.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{paper.name}: no heading for {target}"


def anchors(paper: Path) -> set[str]:
    """What a heading is called in a link."""
    heads = re.findall(r"^#+ (.*)$", paper.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


# What a part of a training file is completed with.
TRAIN = {"path": "rows", "text": "body", "label": "intent"}
START = {"name": "example", "base": "builtin:minilm", "objective": "classification", "data": {"train": TRAIN}}


@each_paper
def test_yaml_examples_load(paper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole jobs and training files as they are; parts with what they need. A wrong one raises UserError."""
    monkeypatch.setenv("BIZLLM_MASK_KEY", "0123456789abcdef" * 2)
    monkeypatch.setenv("DB_PASSWORD", "secret")
    for number, block in enumerate(blocks(paper, "yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block)
        keys = yaml.safe_load(block).keys()
        if "objective" in keys:
            load_recipe(str(path))
        elif "name" in keys:
            load_job(str(path))
        elif "steps" in keys:
            load_job(str(with_the_rest(path)))
        elif "students" in keys:
            load_compression(str(path))
        elif keys <= Recipe.model_fields.keys():
            missing = {key: value for key, value in START.items() if key not in keys}
            path.write_text(f"{yaml.safe_dump(missing)}{block}")
            load_recipe(str(path))
        elif keys <= EvaluationFile.model_fields.keys():
            load_evaluation(str(path))


def with_the_rest(path: Path) -> Path:
    """Steps alone become a job: what they read are sources of it."""
    block = path.read_text()
    inputs = sorted(set(re.findall(r"\binput: (\w+)", block)) - yaml.safe_load(block)["steps"].keys())
    sources = "".join(f"  {name}: {{path: {name}}}\n" for name in inputs)
    models = "models: {encoder: builtin:minilm}\n"
    if re.search(r"generator: writer\b", block):
        models = models.replace("}", ', writer: "openai:small@https://llm.internal/v1"}')
    path.write_text(f"name: example\nwarehouse: {{path: wh}}\nsources:\n{sources}{models}{block}")
    return path


def test_the_readmes_show_the_demo_as_it_is(tmp_path: Path) -> None:
    demo = load_job(str(ROOT / "jobs/demo.yaml")).job
    for readme in READMES:
        example = next(block for block in blocks(readme, "yaml") if re.search(r"^name: demo", block, re.M))
        (tmp_path / "demo.yaml").write_text(example)
        shown = load_job(str(tmp_path / "demo.yaml")).job
        assert shown.steps == demo.steps and shown.models == demo.models and shown.sources.keys() == demo.sources.keys()


def test_the_readmes_show_the_training_file_as_it_is(tmp_path: Path) -> None:
    theirs = (ROOT / "jobs/finetune_intent.yaml").read_text()
    for paper in (*READMES, TRAINING):
        example = next(block for block in blocks(paper, "yaml") if "name: ticket_intent" in block)
        assert yaml.safe_load(example) == yaml.safe_load(theirs), paper.name


# -- the project's training files ---------------------------------------------------------------------------------

TRAININGS = sorted(path for path in (ROOT / "jobs").glob("*.yaml") if is_training_file(str(path)))


@pytest.mark.parametrize("path", TRAININGS, ids=[path.name for path in TRAININGS])
def test_the_projects_training_files_load_and_fit_the_schema(path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    load_recipe(str(path))
    errors = jsonschema.Draft202012Validator(json_schema("finetune")).iter_errors(yaml.safe_load(path.read_text()))
    assert [error.message for error in errors] == []


def test_the_committed_schema_of_training_files_is_this_one() -> None:
    """`bizllm schema finetune > jobs/finetune.schema.json` writes it; editors find it through the first line."""
    assert json.loads((ROOT / "jobs/finetune.schema.json").read_text()) == json_schema("finetune")
    assert json.loads((ROOT / "jobs/compress.schema.json").read_text()) == json_schema("compress")
    assert all("finetune.schema.json" in path.read_text().split("\n", 1)[0] for path in TRAININGS)


# -- the README's task --------------------------------------------------------------------------------------------


def readme_task(readme: Path, folder: Path) -> type[Task]:
    """The class of the README's example, imported from a file of its own."""
    (source,) = (block for block in blocks(readme, "python") if "(Task)" in block)
    file = folder / "script.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location("readme_task", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: type[Task] = module.TASK
    return found


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_the_example_task_keeps_the_contract(readme: Path, tmp_path: Path) -> None:
    cls = readme_task(readme, tmp_path)
    rows = pa.table({"body": ["The lid leaks.", "盖子漏水。", " ", None, "Крышка течёт."]})
    source = StepInput("tickets", rows.schema)

    def task(text: str) -> Task:
        return cls(cls.Settings(task="script", input="tickets", text=text), source, date(2026, 6, 30))

    assert task("body").check() == []
    assert task("bdy").check() == [("text", "bdy", "expected one of body", "did you mean 'body'?")]
    assert cls.describe()["columns"].keys() == set(task("body").columns().names)
    outcome = task("body").answer(task("body").prepare(rows))
    assert outcome.columns.schema == task("body").columns()
    assert outcome.columns["script"].to_pylist() == ["latin", "cjk", "other"]
    answered = outcome.subject.tolist()
    assert answered == [0, 1, 4]
    assert sorted([*answered, *(reject.subject for reject in outcome.rejects)]) == list(range(rows.num_rows))


# -- settings and columns in docs/tasks/, docs/finetune.md and docs/compress.md -----------------------------------


def settings_lines(part: dict[str, Any], whole: dict[str, Any]) -> Iterator[str]:
    """A table of settings, from their JSON Schema."""
    yield from ("| setting | type | default | meaning |", "|---|---|---|---|")
    for setting, about in part["properties"].items():
        default = about.get("default")
        shown = (
            ""
            if default is None or (isinstance(default, dict) and default)
            else f"`{json.dumps(default).strip(chr(34))}`"
        )
        shown = "required" if setting in part.get("required", []) else shown
        yield row(f"`{setting}`", console_tasks.type_words(about, whole), shown, about.get("description", ""))


def task_tables(name: str) -> str:
    """The task's settings and columns as `bizllm tasks show` tells them, in Markdown."""
    (task,) = api.tasks(name)
    lines = [f"Reads: {task['takes']}", "", "| setting | type | default | meaning |", "|---|---|---|---|"]
    for setting, kind, default, meaning in console_tasks.settings_rows(task["settings"], task["settings"]):
        if setting not in Common.model_fields:
            shown = default if default in ("", "required") else f"`{default.strip(chr(34))}`"
            lines.append(row(f"`{setting}`", kind, shown, meaning))
    lines += ["", "| column | type and meaning |", "|---|---|"]
    return "\n".join([*lines, *(row(f"`{column}`", meaning) for column, meaning in task["columns"].items())])


def sections(part: dict[str, Any], whole: dict[str, Any], above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The mappings of a training file by their place."""
    for name, about in part["properties"].items():
        for reference in (way["$ref"] for way in (about, *about.get("anyOf", ())) if "$ref" in way):
            inner = whole["$defs"][reference.rsplit("/", 1)[-1]]
            yield f"{above}{name}", inner
            yield from sections(inner, whole, f"{above}{name}.")


def row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |".replace("|  |", "| |")


def with_tables(paper: Path) -> str:
    """The paper with its tables written anew."""
    if paper == TASK_LIST:
        return written(paper, "tasks", task_list())
    if paper == MONITORING:
        text = filled(paper.read_text(), "metrics: of nights", metrics_table(OF_NIGHTS))
        return filled(text, "metrics: of runs", metrics_table(OF_RUNS))
    if paper in TASKS.values():
        return written(paper, f"settings: {paper.stem}", task_tables(paper.stem))
    if paper == COMPRESSION:
        schema = Compression.model_json_schema()
        parts = {"file": schema, **dict(sections(schema, schema))}
        own = ("file", "data", "data.train")
        tables = {f"compress {place}": "\n".join(settings_lines(parts[place], schema)) for place in own}
    else:
        schema = Recipe.model_json_schema()
        parts = {"file": schema, **dict(sections(schema, schema))}
        tables = {place: "\n".join(settings_lines(part, schema)) for place, part in parts.items()}
        del tables["data.test"], tables["prices.spot"]  # have the settings of data.train and prices.on_demand
    text = paper.read_text()
    for name, table in tables.items():
        text = filled(text, f"settings: {name}", table)
    return text


def metrics_table(metrics: Sequence[Metric]) -> str:
    """Every metric with its labels and meaning."""
    lines = [row(f"`{m.name}`", ", ".join(f"`{label}`" for label in m.labels), m.help) for m in metrics]
    return "\n".join(["| metric | labels beside `job_name` | meaning |", "|---|---|---|", *lines])


def written(paper: Path, name: str, table: str) -> str:
    """The paper with that table between its marks."""
    return filled(paper.read_text(), name, table)


def filled(text: str, name: str, table: str) -> str:
    place = rf"(?<=<!-- {re.escape(name)} -->\n).*?(?=<!-- end -->)"
    assert re.search(place, text, re.S), f"there is no place for <!-- {name} -->"
    return re.sub(place, lambda _: f"\n{table}\n\n", text, count=1, flags=re.S)


def task_list() -> str:
    """Every task with what it works on and does."""
    lines = [f"| [{t['name']}]({t['name']}.md) | {' or '.join(t['shapes'])} | {t['summary']} |" for t in api.tasks()]
    return "\n".join(["| task | works on | what it does |", "|---|---|---|", *lines])


@pytest.mark.parametrize("name", TASKS)
def test_a_tasks_example_is_in_its_page_and_loads(name: str, tmp_path: Path) -> None:
    (task,) = api.tasks(name)
    assert task["takes"] and task["example"]
    examples = "".join(blocks(TASKS[name], "yaml"))
    assert all(line.strip() in examples for line in task["example"].splitlines())
    path = tmp_path / "example.yaml"
    path.write_text("steps:\n" + indent(task["example"], "  ") + "\n")
    steps = load_job(str(with_the_rest(path))).job.steps.values()
    for settings in steps:
        made = task_class(settings.task)(settings, StepInput("rows", pa.schema([])), date(2026, 6, 30))
        assert len(made.caveat()) <= 400, "the report shows no more"


@pytest.mark.parametrize("paper", WITH_SETTINGS, ids=lambda path: path.name)
def test_settings_in_the_docs_are_those_of_the_code(paper: Path) -> None:
    assert paper.read_text() == with_tables(paper), "run: python tests/test_docs.py"


if __name__ == "__main__":
    for each in WITH_SETTINGS:
        each.write_text(with_tables(each))


# -- figures ------------------------------------------------------------------------------------------------------

SIZING = ROOT / "docs/deploy/sizing.md"


def test_the_figures_for_sizing_are_those_that_were_measured() -> None:
    """Each row of a table that names a result holds a figure which stands there, rounded at most to whole seconds."""
    rows = re.findall(r"^\| .*\]\((\S*benchmarks/results/\S+)\) \|$", SIZING.read_text(), re.M)
    assert len(rows) > 15
    for line in SIZING.read_text().splitlines():
        if (target := re.search(r"\]\((\S*benchmarks/results/\S+)\) \|$", line)) is None:
            continue
        told = re.search(r"\d[\d,.]*", line.split(" | ")[1])
        assert told is not None, line
        figures = re.findall(r"\d[\d,.]*\d|\d", (SIZING.parent / target[1]).read_text())
        value = told[0].replace(",", "")
        near = {figure.replace(",", "") for figure in figures}
        digits = len(value.partition(".")[2])
        assert any(re.fullmatch(r"\d+(\.\d+)?", f) and f"{float(f):.{digits}f}" == value for f in near), line


# -- the runbook --------------------------------------------------------------------------------------------------

RUNBOOK = ROOT / "docs/runbook.md"


def test_the_runbook_has_every_alert_and_every_code() -> None:
    """Alerts by the anchor that their rules link to; reject codes as the tasks' pages list them; exit statuses."""
    text = RUNBOOK.read_text()
    anchors = {re.sub(r"\W+", "-", head.lower()) for head in re.findall(r"^### (.*)$", text, re.M)}
    linked = re.findall(
        r"runbook_url: docs/runbook\.md#(\S+)", (ROOT / "infra/monitoring/bizllm.rules.yaml").read_text()
    )
    assert len(linked) > 10 and set(linked) <= anchors
    told = set(re.findall(r"`([a-z_]+)`", text.partition("## Reject codes")[2].partition("\n## ")[0]))
    codes = set()
    for page in TASKS.values():
        rejects = page.read_text().partition("| reject | scope | why |\n")[2].partition("\n\n")[0]
        for cell in re.findall(r"^\| ([^|]*`[a-z_]+`[^|]*) \|", rejects, re.M):
            codes |= set(re.findall(r"`([a-z_]+)`", cell))
    assert {"empty", "too_long"} <= codes <= told, codes - told
    assert all(f"| {status} |" in text for status in (0, 1, 2, 3, 130))
