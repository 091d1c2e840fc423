"""What the papers promise is there: verbs, flags, settings, links, YAML examples, and the README's task."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer.main

from bizllm import api, console
from bizllm.cli import app
from bizllm.jobs.job import load_job
from bizllm.tasks.base import StepInput, Task, task_names
from bizllm.tasks.base import TaskSettings as Common

ROOT = Path(__file__).parent.parent
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
PAPERS = [*READMES, *(ROOT / f"{name}.md" for name in ("CONTRIBUTING", "CHANGELOG", "SECURITY"))]
PAPERS += sorted(ROOT.glob("docs/*.md"))
SETTINGS = ROOT / "docs/tasks.md"
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
    foreign = {"--job"}  # of jobs/nightly.py
    for paper in PAPERS:
        named = set(re.findall(r"`(--[a-z][a-z-]*)", paper.read_text()))
        assert named <= ours | foreign, f"{paper.name}: {named - ours - foreign}"


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


@each_paper
def test_yaml_examples_are_jobs(paper: Path, tmp_path: Path) -> None:
    """Whole jobs as they are; a few steps with the sources and models that they name."""
    for number, block in enumerate(blocks(paper, "yaml")):
        if not re.search(r"^(name|steps):", block, re.M):
            continue
        whole = block
        if not re.search(r"^name:", block, re.M):
            inputs = sorted(set(re.findall(r"\binput: (\w+)", block)))
            sources = "".join(f"  {name}: {{path: {name}}}\n" for name in inputs)
            whole = f"name: example\nwarehouse: {{path: wh}}\nsources:\n{sources}"
            whole += f"models: {{encoder: builtin:minilm}}\n{block}"
        path = tmp_path / f"{number}.yaml"
        path.write_text(whole)
        load_job(str(path))  # raises UserError where the example is wrong


def test_the_readmes_show_the_demo_as_it_is(tmp_path: Path) -> None:
    demo = load_job(str(ROOT / "jobs/demo.yaml")).job
    for readme in READMES:
        example = next(block for block in blocks(readme, "yaml") if re.search(r"^name: demo", block, re.M))
        (tmp_path / "demo.yaml").write_text(example)
        shown = load_job(str(tmp_path / "demo.yaml")).job
        assert shown.steps == demo.steps and shown.models == demo.models and shown.sources.keys() == demo.sources.keys()


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


# -- settings and columns in docs/tasks.md ------------------------------------------------------------------------


def settings_table(name: str) -> str:
    """The task's settings and columns as `bizllm tasks show` tells them, in Markdown."""
    (task,) = api.tasks(name)
    schema = task["settings"]
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for setting, about in schema["properties"].items():
        if setting in Common.model_fields:
            continue
        default = about.get("default")
        shown = "" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"
        shown = "required" if setting in schema.get("required", []) else shown
        kind = console._type_words(about, schema)
        lines.append(row(f"`{setting}`", kind, shown, about.get("description", "")))
    lines += ["", "| column | type and meaning |", "|---|---|"]
    lines += [row(f"`{column}`", meaning) for column, meaning in task["columns"].items()]
    return "\n".join(lines)


def row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |".replace("|  |", "| |")


def with_tables(text: str) -> str:
    """The paper with its tables written anew."""
    for name in task_names():
        place = rf"(?<=<!-- settings: {name} -->\n).*?(?=<!-- end -->)"
        assert re.search(place, text, re.S), f"docs/tasks.md has no place for the settings of {name}"
        text = re.sub(place, lambda _, name=name: f"\n{settings_table(name)}\n\n", text, count=1, flags=re.S)
    return text


def test_settings_in_the_docs_are_those_of_the_code() -> None:
    text = SETTINGS.read_text()
    assert text == with_tables(text), "run: python tests/test_docs.py"


if __name__ == "__main__":
    SETTINGS.write_text(with_tables(SETTINGS.read_text()))
