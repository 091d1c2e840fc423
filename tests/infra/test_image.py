"""infra/image/Dockerfile, read: no container engine is needed, and none is tried."""

from __future__ import annotations

import re
import subprocess
from fnmatch import fnmatch

import pytest
from dockerfile import FOLDER, ROOT, instructions


def named(instruction: str) -> list[str]:
    return [text for name, text in instructions() if name == instruction]


def test_bases_are_pinned_and_the_same() -> None:
    defaults = dict(text.split("=", 1) for text in named("ARG"))
    assert all(value for value in defaults.values())
    images = [re.sub(r"\$\{(\w+)\}", lambda m: defaults[m[1]], text.split()[0]) for text in named("FROM")]
    assert len(set(images)) == 1 and re.fullmatch(r"python:3\.11\.\d+-slim-\w+", images[0]), images
    assert re.fullmatch(r"\d+\.\d+\.\d+", defaults["UV_VERSION"])
    makefile = (ROOT / "Makefile").read_text()
    (low, high) = re.findall(r"uv>=([\d.]+),<([\d.]+)", makefile)[0]
    ours = tuple(map(int, defaults["UV_VERSION"].split(".")))
    assert tuple(map(int, low.split("."))) <= ours < tuple(map(int, high.split(".")))


def test_libraries_come_from_a_lock_file_that_is_there() -> None:
    flavors = dict(text.split("=", 1) for text in named("ARG"))["FLAVOR"]
    assert (
        flavors == "cpu" and (ROOT / "requirements/cpu.lock").is_file() and (ROOT / "requirements/gpu.lock").is_file()
    )
    installs = [text for text in named("RUN") if "uv pip install" in text]
    assert len(installs) == 2 and all('constraints "requirements/${FLAVOR}.lock"' in text for text in installs)
    pinned = (ROOT / "requirements/cpu.lock").read_text()
    assert re.search(r"^hatchling==", pinned, re.M), "what builds our own wheel is locked too"


def test_the_last_stage_has_no_root_and_no_tools_of_tests() -> None:
    kept = [name for name, _ in instructions()]
    last = instructions()[len(kept) - 1 - kept[::-1].index("FROM") :]
    users = [text for name, text in last if name == "USER"]
    assert users == ["1000:1000"]
    after = [name for name, _ in last[[name for name, _ in last].index("USER") :]]
    assert "RUN" not in after and "COPY" not in after
    assert "--extra dev" not in (FOLDER / "Dockerfile").read_text()
    assert any(name == "HEALTHCHECK" for name, _ in last)
    made = [text for name, text in last if name == "RUN" and "useradd" in text]
    assert len(made) == 1 and "--uid 1000" in made[0]


def test_copied_files_exist_and_are_not_left_out() -> None:
    ignored = [
        line for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] not in ("", "#")
    ]
    assert ignored[0] == "*", "nothing but what is named goes to the engine"
    let_in = [line[1:] for line in ignored if line.startswith("!")]
    for text in named("COPY"):
        if text.startswith("--from="):
            continue
        *sources, _ = text.split()
        for source in sources:
            path = ROOT / source
            assert path.exists(), source
            files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
            inside = [file.relative_to(ROOT).as_posix() for file in files if "__pycache__" not in file.parts]
            assert inside and all(any(fnmatch(file, rule.replace("**", "*")) for rule in let_in) for file in inside)
    for secret in (".env", ".git/config", ".venv/bin/python", "out/x", "jobs/data/x", "tests/x"):
        assert not any(fnmatch(secret, rule.replace("**", "*")) for rule in let_in), secret


def test_the_package_finds_what_it_packs() -> None:
    """pyproject.toml names files that the build must be given."""
    project = (ROOT / "pyproject.toml").read_text()
    (readme,) = re.findall(r'^readme = "(.*)"$', project, re.M)
    copied = " ".join(named("COPY"))
    assert readme in copied and "LICENSE" in copied and "bizllm/" in copied


@pytest.mark.parametrize("text", [re.sub(r"^(--mount=\S+\s+)+", "", text) for text in named("RUN")])
def test_shell_of_the_steps_is_whole(text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_secret_is_in_it() -> None:
    text = (FOLDER / "Dockerfile").read_text().lower()
    for word in ("password", "secret", "aws_access", "api_key", "token="):
        assert word not in text.replace("ray_auth_mode=token", ""), word
