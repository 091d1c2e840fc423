"""`bizllm submit` and `stop`, `ray job submit`, a driver elsewhere: nights on a real head that asks for a token."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cuts import way_to
from heads import Head, end, free_ports, started_head, typed
from nights import ROWS, receipts
from nights import night as night_of

from bizllm import api
from bizllm.console.cluster import print_stopped
from bizllm.errors import LockHeld, RunError, UserError
from bizllm.jobs import follow as following
from bizllm.jobs import ray_jobs
from bizllm.jobs import submit as submitting
from bizllm.jobs.code import Code, code_of
from bizllm.jobs.follow import follow
from bizllm.jobs.lock import RunLock
from bizllm.jobs.submission import Submission

NIGHT = "2026-03-10"
ROOT = Path(__file__).parents[2]
BACKFILL = ("--from", "2026-03-09", "--to", NIGHT)
Job = Callable[..., str]


def command(path: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "bizllm.cli", "submit", path, "--date", NIGHT, *more]


def submit(head: Head, path: str, *more: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`bizllm submit` in a process of its own, with the environment that lets it in, or `env`."""
    asked = command(path, "--address", head.url, *more)
    return subprocess.run(asked, env=env or head.env, capture_output=True, text=True, timeout=200)


# -- sent and waited for ------------------------------------------------------------------------------------------


def test_a_night_is_sent_and_waited_for(head: Head, night: Job, inside: Any, tmp_path: Path) -> None:
    """With bizllm's own code; and what Ray keeps of it holds nothing of this machine's environment."""
    path = night(sources__tickets__path="${LAKE:-tickets}", registry="http://${REGISTRY:-127.0.0.1:9}")
    (tmp_path / ".gitignore").write_text("/mine/\n")
    for folder in (".git", ".venv", "out", "mine", "sub"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"kept-{folder.strip('.')}").write_text("x")
    secrets = {"LAKE": f"{tmp_path}/./tickets", "REGISTRY": "hunter2.internal", "API_KEY": "sk-12345678"}
    done = submit(
        head,
        path,
        *("--code", "--wait", "--json", "--set", "steps.summary.max_sentences=1"),
        env=head.env | secrets,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["verb"], said["state"], said["exit_status"], said["date"]) == ("run", "done", 0, NIGHT)
    name = said["submission_id"]
    assert re.fullmatch(rf"shop-{NIGHT}-[0-9a-f]{{6}}", name)
    assert f"bizllm stop {name} --address {head.url}" in done.stderr
    assert "${LAKE:-tickets} takes its value from the environment of the cluster" in done.stderr
    assert re.search(r"summary +summarize +done +12 +12", done.stderr), "the job's own lines are shown"
    assert "a" * 64 not in done.stdout + done.stderr
    (count,) = api.show(path, sql="select count(*) n, count(summary) s from summary").to_pylist()
    assert count == {"n": 12, "s": 12}

    ray_files = Path(head.env["RAY_TMPDIR"])
    unpacked = ray_files.glob("session_2*/runtime_resources/working_dir_files/*/**/*")
    assert {file.name for file in unpacked if file.is_file()} >= {"shop.yaml", "part-0.parquet", "kept-sub"}
    sent = {file.name for file in ray_files.rglob("kept-*")}
    assert sent == {"kept-sub"}, "neither git's own, nor environments, nor results, nor what git ignores"
    assert list(ray_files.glob("session_2*/runtime_resources/py_modules_files/*/bizllm/cli/__init__.py"))

    info = ray_jobs.job_info(inside, name)
    assert info is not None and info.metadata["bizllm_code"] == said["code"] == str(code_of())
    assert (info.metadata["bizllm_job"], info.metadata["bizllm_date"]) == ("shop", NIGHT)
    assert info.metadata["bizllm_code_from"] == said["code_from"] == "sent"
    assert set(info.runtime_env["env_vars"]) == {submitting.STOP_GRACE}
    stored = inside._do_request("GET", "/api/jobs/").text
    assert name in stored
    for file in ray_files.rglob("*"):
        if file.is_file() and not file.is_socket():
            stored += file.read_bytes().decode("latin-1")
    assert "tickets" in stored and not [value for value in secrets.values() if value in stored]


def test_another_version_on_the_cluster_is_status_2(head: Head, night: Job, inside: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(submitting, "code_of", lambda *_: Code("9.9.9", "0" * 12))
    lines: list[str] = []
    ended = api.submit(night(), address=head.url, date=NIGHT, wait=True, line=lines.append)
    assert (ended.exit_status, ended.meaning()) == (2, "the input was wrong"), lines
    (told,) = [line for line in lines if line.startswith("bizllm: ")]
    assert f"bizllm {code_of()} in" in told and "9.9.9/000000000000" in told and "--code" in told


def test_connections_that_break_lose_nothing(head: Head, inside: Any, tmp_path: Path) -> None:
    """Log and state go over a way that is cut again and again, and once closed for seconds."""
    script = "import time\nfor i in range(80): print(f'line {i}'); time.sleep(0.1)\nprint('the last', end='')"
    (tmp_path / "job.py").write_text(script)
    ray_jobs.connect(head.url).submit_job(entrypoint=f"python {tmp_path}/job.py; exit 3", submission_id="broken")
    lines: list[str] = []
    with way_to(int(head.url.rpartition(":")[2])) as way:
        client = ray_jobs.connect(way.url)
        sent = Submission("broken", way.url, None, None)
        over = threading.Event()

        def disturb() -> None:
            while not any(line.startswith("line ") for line in lines):
                time.sleep(0.05)
            for _ in range(4):
                over.wait(0.7)
                way.cut()
            with way.closed():
                over.wait(3.0)

        thread = threading.Thread(target=disturb)
        thread.start()
        ended = follow(sent, client, lines.append)
        over.set()
        thread.join()
        assert way.cut_off >= 4, "connections were open, and were cut"
    assert (ended.state, ended.exit_status) == ("failed", 3)
    told = [line for line in lines if line.startswith(("line ", "the last"))]
    assert told == [*(f"line {i}" for i in range(80)), "the last"]


def test_the_job_ends_with_its_own_status(head: Head, inside: Any, night: Job) -> None:
    """What is wrong with the data is found where the data is: status 2 from there, and its line."""
    path = night(steps__summary__text="bdy")
    done = typed("submit", path, "--date", NIGHT, "--address", head.url, "--wait")
    assert done.exit_code == 2, done.stderr
    assert "did you mean 'body'?" in done.stderr and "Traceback" not in done.stderr
    assert "failed (the input was wrong)" in done.stdout


def test_a_held_lock_is_status_3_there_and_here(head: Head, inside: Any, night: Job, tmp_path: Path) -> None:
    lock = str(tmp_path / f"wh/_bizllm/shop/locks/{NIGHT}.json")
    with RunLock(lock, holder="another", lease_s=60):
        done = typed("submit", night(), "--date", NIGHT, "--address", head.url, "--wait", "--json")
    assert done.exit_code == 3, done.stderr
    assert json.loads(done.stdout)["exit_status"] == 3 and "another" in done.stderr


@pytest.mark.parametrize("env", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "b" * 64}], ids=["no", "wrong"])
def test_without_the_token_nobody_gets_in(head: Head, night: Job, env: dict[str, str]) -> None:
    bare = {name: value for name, value in head.env.items() if not name.startswith("RAY_AUTH")}
    done = submit(head, night(), env=bare | env)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"--address: '{head.url}'") and "token" in line
    assert "b" * 64 not in line


# -- stopped ------------------------------------------------------------------------------------------------------


def test_ctrl_c_leaves_the_job_and_stopping_ends_it(
    head: Head,
    many: Job,
    inside: Any,
    undisturbed: Callable[[str], Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the middle of a night, whose rerun ends like one that nobody disturbed."""
    path = many(warehouse={"path": str(tmp_path / "wh")})
    first = subprocess.Popen(
        command(path, "--address", head.url, "--wait"), env=head.env, stderr=subprocess.PIPE, text=True
    )
    assert first.stderr is not None
    name = next(line.split()[1] for line in first.stderr if line.startswith("submitted "))
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 130, said
    assert f"{name} goes on" in said and f"bizllm stop {name} --address {head.url}" in said
    assert "Traceback" not in said

    deadline = time.monotonic() + 100
    while len(receipts(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    lock = tmp_path / f"wh/_bizllm/shop/locks/{NIGHT}"
    (held,) = (json.loads(file.read_text()) for file in lock.iterdir())
    told = api.stop(held["holder"], address=head.url)  # by the run, which the lock names to whoever is kept waiting
    assert (told["submission_id"], told["job"], told["date"]) == (name, "shop", NIGHT)
    assert (told["stopped"], told["killed"], told["state"], told["exit_status"]) == (True, False, "cancelled", 130)
    print_stopped(told)
    out, err = capsys.readouterr()
    assert out.startswith(f"{name} stopped after ") and "the lock is free" in out
    assert re.search(r"summary +summarize +cancelled", err), "the driver's own last lines"
    assert 2 <= len(receipts(tmp_path)) < 60, "stopped in the middle"
    assert [(row["run_id"], row["state"]) for row in api.runs(path)] == [(held["holder"], "cancelled")]
    assert not (tmp_path / "wh/shop/summary/metadata").exists(), "nothing is published"
    (left,) = (json.loads(file.read_text()) for file in lock.iterdir())
    assert not held["released"] and left["released"]

    again = typed("stop", name, "--address", head.url)
    assert (again.exit_code, again.stdout) == (0, f"{name} had ended before: cancelled\n"), again.stderr

    quiet = undisturbed(path)
    assert api.run(path, date=NIGHT).state == "done"
    assert night_of(path) == quiet


def test_missing_nights_are_sent_stopped_and_gone_on_with(
    head: Head, many: Job, inside: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One job of the cluster runs them all: whichever of its run_ids is named, the whole of it ends."""
    path = many(warehouse={"path": str(tmp_path / "wh")})
    last = datetime.now(UTC).date() - timedelta(days=1)
    first = last - timedelta(days=1)
    for day, arrived in ((first, "2026-03-09"), (last, NIGHT)):
        (tmp_path / f"tickets/dt={arrived}").rename(tmp_path / f"tickets/dt={day}")
    sent = api.submit(path, address=head.url, catch_up=True, since=str(first))
    assert re.fullmatch("shop-catch-up-[0-9a-f]{6}", sent.submission_id) and sent.date is None
    locks, deadline = tmp_path / "wh/_bizllm/shop/locks", time.monotonic() + 100
    while not (locks / str(first)).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(LockHeld, match=r"another catch-up of this job .* is under way") as held:
        api.catch_up(path)
    (named,) = re.findall("`bizllm stop (.+)`", str(held.value))
    while len(receipts(tmp_path, str(last))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    told = api.stop(named, address=head.url)
    assert (told["submission_id"], told["verb"], told["date"]) == (sent.submission_id, "catch_up", None)
    assert (told["stopped"], told["killed"], told["state"], told["exit_status"]) == (True, False, "cancelled", 130)
    print_stopped(told)
    out, _ = capsys.readouterr()
    assert "the next catch-up goes on from what was finished; the lock is free" in out
    assert 2 <= len(receipts(tmp_path, str(last))) < 60, "stopped in the middle"
    rows = api.runs(path)
    assert [(row["run_date"], row["state"]) for row in rows] == [(last, "cancelled"), (first, "done")]
    assert api.show(path, sql="select distinct run_date d from summary").to_pylist() == [{"d": first}]
    for of in (str(first), str(last), "catch-up"):
        assert [json.loads(file.read_text())["released"] for file in (locks / of).iterdir()] == [True]
    ended = api.stop(rows[1]["run_id"], address=head.url)
    assert (ended["submission_id"], ended["stopped"], ended["state"]) == (sent.submission_id, False, "cancelled")

    done = typed("submit", path, "--address", head.url, "--catch-up", "--most", "1", "--wait")
    assert done.exit_code == 0, done.stderr
    assert re.fullmatch("shop-catch-up-[0-9a-f]{6} of shop's missing nights: done\n", done.stdout)
    assert f" of shop for {last}: done" in done.stderr, "the job's own lines are shown"
    counts = api.show(path, sql="select run_date d, count(*) n from summary group by 1 order by 1").to_pylist()
    assert counts == [{"d": first, "n": 12}, {"d": last, "n": ROWS - 3}]


def test_a_compression_ends_with_its_own_status(head: Head, inside: Any, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "compress.yaml").write_text(
        f"data: {{train: {{path: rows, text: body}}}}\noutput: {tmp_path}/models\nregistry: sqlite:///{tmp_path}/r.db\n"
    )
    lines: list[str] = []
    path, model = str(tmp_path / "compress.yaml"), "builtin:minilm"
    ended = api.submit(path, address=head.url, model=model, wait=True, line=lines.append)
    assert (ended.verb, ended.exit_status, ended.subject()) == ("compress", 2, "smaller minilm"), lines
    assert any(line.startswith("MODEL: 'builtin:minilm': expected a model of texts") for line in lines), lines


def test_a_driver_that_does_not_listen_is_killed(head: Head, inside: Any) -> None:
    inside.submit_job(entrypoint="trap '' TERM; echo deaf; while :; do sleep 0.2; done", submission_id="deaf")
    deadline = time.monotonic() + 60
    while "deaf\n" not in inside.get_job_logs("deaf") and time.monotonic() < deadline:
        time.sleep(0.1)
    told = api.stop("deaf", address=head.url)
    assert (told["stopped"], told["killed"], told["state"]) == (True, True, "cancelled")
    assert told["seconds"] >= 3 and "deaf" in told["lines"] and told["job"] is None


def test_what_nobody_knows_is_status_2(head: Head, inside: Any) -> None:
    for run, expected in {
        "shop": "knows no such submission or run",
        "20260310T010203-a1b2c3": "was not run by a job of a cluster",
        "20260310T010203-a1b2c3a1b2c3": "knows no job that ran it",
    }.items():
        with pytest.raises(UserError, match=f"^RUN: '{run}': .*{expected}"):
            api.stop(run, address=head.url)


def test_a_job_that_is_stopped_meanwhile(head: Head, night: Job, inside: Any) -> None:
    ended = api.submit(
        night(),
        address=head.url,
        date=NIGHT,
        wait=True,
        sent=lambda sent: inside.stop_job(sent.submission_id),
    )
    assert (ended.state, ended.exit_status) == ("cancelled", 130)


@pytest.mark.slow  # two more heads
def test_a_cluster_that_is_lost_meanwhile(night: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOST_AFTER_S", 3.0)
    (port,) = free_ports(1)
    with started_head(port) as first:
        for variable in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
            monkeypatch.setenv(variable, first.env[variable])
        with pytest.raises(RunError) as lost:
            api.submit(night(), address=first.url, date=NIGHT, wait=True, sent=lambda _: end(first.process))
        assert "has not answered for 3 s" in str(lost.value) and "\n" not in str(lost.value)
    with started_head(port) as second:
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", second.env["RAY_AUTH_TOKEN_PATH"])
        sent = Submission("shop-gone", second.url, "shop", date.fromisoformat(NIGHT))
        with pytest.raises(RunError, match="the cluster lost it"):
            follow(sent, ray_jobs.connect(second.url), print)


# -- without `bizllm submit` --------------------------------------------------------------------------------------


@pytest.fixture
def shop(job: Job, tmp_path: Path) -> Path:
    """A folder to submit: the job, its data and the script; the package itself is installed on the cluster."""
    folder = tmp_path / "upload"
    folder.mkdir()
    job(steps__segments=None, sources__orders=None)
    for script in ("nightly.py", "backfill.py"):
        shutil.copy(ROOT / "jobs" / script, folder)
    shutil.move(tmp_path / "tickets", folder)
    shutil.move(tmp_path / "shop.yaml", folder)
    return folder


def test_a_warehouse_in_the_jobs_own_copy_is_refused(head: Head) -> None:
    """The whole project as working folder, and the demo, whose warehouse is beside it by default."""
    status, said = head.submit(
        ROOT, "python", "jobs/nightly.py", "--job", "jobs/demo.yaml", "--date", "2026-06-30", "--only", "ticket_summary"
    )
    assert status != 0 and "exit code 2" in said, said
    assert "warehouse.path: " in said and "working folder, which Ray deletes when the job ends" in said
    assert "Traceback (most recent call last)" not in said


@pytest.mark.parametrize(
    ("script", "dates"),
    [("nightly.py", ("--date", NIGHT)), pytest.param("backfill.py", BACKFILL, marks=pytest.mark.slow)],
)
def test_nights_as_a_ray_job(head: Head, inside: Any, shop: Path, tmp_path: Path, script: str, dates: Any) -> None:
    warehouse = f"warehouse.path={tmp_path / 'wh'}"
    status, said = head.submit(shop, "python", script, "--job", "shop.yaml", *dates, "--set", warehouse)
    assert status == 0 and "succeeded" in said.lower(), said
    path = str(shop / "shop.yaml")
    (count,) = api.show(path, sql="select count(*) n, count(summary) s from summary", sets=[warehouse]).to_pylist()
    nights = len(dates) // 2
    assert count == {"n": 12 * nights, "s": 12 * nights}
    rows = api.runs(path, sets=[warehouse])
    assert [row["state"] for row in rows] == ["done"] * nights
    told = api.stop(rows[0]["run_id"], address=head.url)
    assert (told["stopped"], told["state"]) == (False, "done"), "a run knows its submission, whoever sent it"


def assert_a_night_from_elsewhere(head: Head, path: str) -> None:
    """A whole night, whose driver is a Ray client."""
    done = subprocess.run(
        [sys.executable, "-m", "bizllm.cli", "run", path, "--date", NIGHT, "--address", head.client, "--json"],
        env=head.env,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    (step,) = json.loads(done.stdout)["steps"]
    assert (step["state"], step["rows_in"], step["rows_out"]) == ("done", 40, 40)


def test_a_night_from_elsewhere(head: Head, job: Job) -> None:
    """The driver is a Ray client; more units than go through plain Ray on the cluster itself."""
    path = job(steps__summary=None, sources__tickets=None, runtime={"unit_rows": 2})
    assert_a_night_from_elsewhere(head, path)


@pytest.mark.slow
def test_workers_elsewhere_are_told_of_the_store(head: Head, job: Job, s3_endpoint: str, tmp_path: Path) -> None:
    """Neither the cluster nor the driver has more than keys: what the file says of the store must reach both."""
    import boto3

    store = boto3.client("s3", endpoint_url=s3_endpoint)
    store.create_bucket(Bucket="elsewhere")
    store.upload_file(str(tmp_path / "orders/part-0.parquet"), "elsewhere", "orders/part-0.parquet")
    path = job(
        steps__summary=None,
        sources={"orders": {"path": "s3://elsewhere/orders", "key": ["order_id"]}},
        warehouse={"path": "s3://elsewhere/wh", "uri": f"sqlite:///{tmp_path}/catalog.db"},
        storage={"endpoint": s3_endpoint, "region": "us-east-1"},
    )
    assert_a_night_from_elsewhere(head, path)


def test_a_client_without_the_token_is_refused(head: Head, shop: Path) -> None:
    bare = {name: value for name, value in head.env.items() if not name.startswith("RAY_AUTH")}
    status, said = head.submit(shop, "python", "-c", "print('ran')", env=bare | {"RAY_AUTH_MODE": "disabled"})
    assert status != 0 and "ran\n" not in said
    assert "token" in said.lower(), said
