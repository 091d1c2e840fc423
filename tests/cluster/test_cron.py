"""cluster/cron: systemd's own opinion of the units, and what cron would run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CRON = ROOT / "cluster/cron"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60)


@needs_systemd
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    (tmp_path / "bizllm").write_text("#!/bin/sh\n")
    (tmp_path / "bizllm").chmod(0o755)
    for name in ("bizllm.service", "bizllm.timer"):  # systemd looks for the command
        text = (CRON / name).read_text().replace("/opt/bizllm/bin/bizllm", str(tmp_path / "bizllm"))
        (tmp_path / name).write_text(text)
    files = [str(tmp_path / name) for name in ("bizllm.service", "bizllm.timer")]
    checked = analyze("verify", *files)
    assert (checked.returncode, checked.stderr) == (0, "")
    (tmp_path / "bizllm.timer").write_text("[Timer]\nOnCalendar=every night\n")
    assert "every night" in analyze("verify", *files).stderr


@needs_systemd
def test_the_timer_fires_in_the_jobs_zone() -> None:
    (when,) = re.findall(r"^OnCalendar=(.+)$", (CRON / "bizllm.timer").read_text(), re.M)
    told = analyze("calendar", "--base-time=2026-06-30 12:00:00 UTC", "--iterations=2", when).stdout
    assert re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", told) == [
        "2026-06-30 17:30:00 UTC",
        "2026-07-01 17:30:00 UTC",
    ]


def test_what_cron_runs_is_a_verb_of_ours() -> None:
    from typer.main import get_command

    from bizllm.cli import app

    lines = [line for line in (CRON / "bizllm.crontab").read_text().splitlines() if re.match(r"[\d*]", line)]
    commands = [re.split(r"\s+", line, maxsplit=6)[6] for line in lines]
    commands += re.findall(r"^ExecStart=/opt/bizllm/bin/(.+)$", (CRON / "bizllm.service").read_text(), re.M)
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command.split(">>")[0])
        assert words[:2] == ["bizllm", "run"] and "%" not in command  # cron would make a new line of it
        run = get_command(app).commands["run"]  # type: ignore[attr-defined]
        assert run.make_parser(run.context_class(run)).parse_args(words[2:])[0]["catch_up"] is True
