"""Messages over real HTTP: to receivers that are slow, refuse, err, hang or drip; each event once; no secret."""

from __future__ import annotations

import io
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bizllm import api
from bizllm.cli import app
from bizllm.errors import LockHeld, UserError
from bizllm.jobs.job import load_job
from bizllm.jobs.lock import RunLock, lock_url
from bizllm.jobs.notices import Address, addresses
from bizllm.jobs.training_file import load_recipe
from bizllm.receivers import Receiver
from bizllm.watch import notify
from bizllm.watch.messages import Message
from bizllm.watch.notify import news, tell
from tests.listeners import listening
from tests.watch.conftest import LAST, NOW, Shop

Make = Callable[..., Shop]
HOOK = "${TEST_HOOK}"
FAILED = Message("failed", "shop", "shop for 2026-06-30", "failed: summary", "bizllm runs shop.yaml", state="failed")
DONE = Message("done", "shop", "shop for 2026-06-30", "done", "bizllm runs shop.yaml", state="done")


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What is logged, as it is written."""
    from bizllm.logs import JsonLines

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.getLogger("bizllm").addHandler(handler)
    yield stream
    logging.getLogger("bizllm").removeHandler(handler)


def to(url: str, **settings: Any) -> Address:
    return Address(Receiver(url=HOOK, **settings), url)


def timed(*given: Any) -> tuple[Any, float]:
    began = time.monotonic()
    return tell(*given), time.monotonic() - began


# -- delivery -----------------------------------------------------------------------------------------------------


def test_an_error_that_may_pass_is_tried_again(logged: io.StringIO) -> None:
    with listening(statuses=[500, 429]) as hook:
        told, seconds = timed([to(hook.url)], FAILED)
        assert (told.sent, told.unsent, len(hook.got)) == ((0,), (), 3) and seconds < notify.LIMIT_S
    assert logged.getvalue() == ""


@pytest.mark.parametrize(("status", "tries"), [(500, 3), (404, 1), (403, 1)])
def test_an_error_that_stays_is_a_log_line(status: int, tries: int, logged: io.StringIO) -> None:
    with listening("/T0/secret", statuses=[status] * 9) as hook:
        told, _ = timed([to(hook.url)], FAILED)
        assert (told.sent, told.unsent, len(hook.got)) == ((), (0,), tries)
    line = json.loads(logged.getvalue())
    assert (line["event"], line["receiver"], line["notice"], line["reason"]) == (
        "notice_not_sent",
        0,
        "failed",
        f"HTTP {status}",
    )
    assert "secret" not in logged.getvalue() and "127.0.0.1" not in logged.getvalue()


def test_a_redirect_is_not_followed() -> None:
    with listening() as other, listening(statuses=[302], headers={"Location": f"{other.url}/there"}) as hook:
        assert tell([to(hook.url)], FAILED).unsent == (0,)
        assert other.paths == []


def test_nobody_listens_and_no_such_name(logged: io.StringIO) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told, seconds = timed([to(f"http://127.0.0.1:{port}/secret"), to("https://nowhere.invalid/secret")], FAILED)
    assert told.unsent == (0, 1) and seconds <= notify.LIMIT_S + 0.5
    reasons = {json.loads(line)["reason"] for line in logged.getvalue().splitlines()}
    assert "ConnectionRefusedError" in reasons and "secret" not in logged.getvalue()


@pytest.mark.parametrize("fault", [{"wait_s": 60.0}, {"drip_s": 0.3}])
def test_receivers_that_hang_hold_nobody_up(fault: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never answers, one that drips its answer byte by byte (each renews a socket's timeout); the good one
    beside it is told."""
    monkeypatch.setattr(notify, "LIMIT_S", 2.5)
    monkeypatch.setattr(notify, "TRY_S", 0.7)
    with listening(**fault) as bad, listening() as good:  # type: ignore[arg-type]
        told, seconds = timed([to(bad.url), to(bad.url), to(good.url)], FAILED)
        assert (told.sent, told.unsent, len(good.got)) == ((2,), (0, 1), 1)
        assert seconds <= 3.0 and len(bad.got) >= 2


def test_a_store_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch, logged: io.StringIO) -> None:
    monkeypatch.setattr(notify, "LIMIT_S", 1.0)
    monkeypatch.setattr(notify.storage, "exists", lambda _: time.sleep(5))
    told, seconds = timed([to("http://127.0.0.1:9/")], FAILED, "s3://lake/told.json")
    assert told.unsent == (0,) and seconds < 2 and "notice_not_sent" in logged.getvalue()


def test_the_limits_hold_what_the_docs_promise() -> None:
    assert notify.LIMIT_S <= 10 and 3 * notify.TRY_S + sum(notify.WAITS_S) > notify.LIMIT_S - 0.5


# -- what is told, and when ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "on", "heard", "expected"),
    [
        ("failed", ["failed"], [], "failed"),
        ("failed", ["failed"], ["failed"], None),
        ("failed", ["late"], [], None),
        ("late", ["failed", "late"], ["failed"], "late"),
        ("done", ["recovered"], [], None),
        ("done", ["recovered"], ["failed"], "recovered"),
        ("done", ["recovered", "done"], ["late"], "recovered"),
        ("done", ["done"], [], "done"),
        ("done", ["done"], ["failed"], "done"),
        ("done", ["failed"], ["failed"], None),
    ],
)
def test_news(event: Any, on: list[Any], heard: list[str], expected: str | None) -> None:
    assert news(event, Receiver(url=HOOK, on=on), heard) == expected


def test_each_event_of_a_night_once_until_it_is_there(tmp_path: Path) -> None:
    kept = str(tmp_path / "told.json")
    with listening() as one, listening() as two:
        both = [to(one.url), to(two.url, on=["failed", "done"])]

        def heard(message: Message) -> list[list[str]]:
            tell(both, message, kept)
            return [[body["event"] for body in hook.take()] for hook in (one, two)]

        assert heard(FAILED) == [["failed"], ["failed"]]
        assert heard(FAILED) == [[], []], "a scheduler's retry"
        assert heard(replace(FAILED, event="late")) == [["late"], []]
        assert heard(DONE) == [["recovered"], ["done"]]
        assert not Path(kept).exists()
        assert heard(replace(DONE, state="unchanged")) == [[], []]
        assert heard(FAILED) == [["failed"], ["failed"]], "it failed anew"


def test_who_could_not_be_told_is_told_the_next_time(tmp_path: Path) -> None:
    kept = str(tmp_path / "told.json")
    with listening() as good, listening(statuses=[404]) as bad:
        receivers = [to(good.url), to(bad.url)]
        assert tell(receivers, FAILED, kept).unsent == (1,)
        assert tell(receivers, FAILED, kept).sent == (1,)
        assert (len(good.got), len(bad.got)) == (1, 2)


def test_the_shapes() -> None:
    numbers = dict.fromkeys(("rows_out", "rows_rejected", "rows_reused", "records_out", "tokens"), 0)
    good = {"step": "a", "task": "embed", "state": "done", "rows_in": 9000, "seconds": 61.4, "error": None, **numbers}
    bad = {**good, "step": "b", "state": "failed", "error": "<!here> `x` & " + "y" * 900}
    steps = [good, bad]
    message = replace(FAILED, steps=steps * 40, report="s3://lake/r.html", error="one\ntwo")
    slack = message.body("slack")
    assert slack["text"] == "shop for 2026-06-30: failed: summary"
    texts = [block["text"]["text"] for block in slack["blocks"]]
    assert {block["type"] for block in slack["blocks"]} == {"section"} and all(len(text) <= 3000 for text in texts)
    shown = "\n".join(texts)
    assert "<!here>" not in shown and "&lt;!here&gt; 'x' &amp; yyy" in shown and "> one\n> two" in shown
    assert texts[2].startswith("• *b* failed"), "the worst come first"
    plain = json.loads(json.dumps(message.body("json")))
    assert plain["event"] == "failed" and len(plain["steps"]) == 80 and plain["steps"][0]["rows_in"] == 9000
    assert "records_out" not in plain["steps"][0]


# -- the file -----------------------------------------------------------------------------------------------------

SECRET = "https://hooks.example.com/T0/B0/XyZ"


@pytest.mark.parametrize(
    "written", [[{"url": SECRET}], {"url": SECRET}, SECRET, [SECRET], [{"url": f"{SECRET}${{X}}"}]]
)
def test_a_url_in_the_file_is_refused_and_never_shown(written: Any, shop: Make) -> None:
    with pytest.raises(UserError) as refused:
        load_job(str(shop(notify=written).path))
    assert "${SLACK_WEBHOOK}" in str(refused.value) and "XyZ" not in str(refused.value)


def test_mistakes_are_told_by_line(shop: Make) -> None:
    wrong = {"notify": [{"url": HOOK, "on": ["fails"], "formt": "slack"}], "due": "6:00", "budget": -1}
    with pytest.raises(UserError) as refused:
        load_job(str(shop(**wrong).path))
    told = str(refused.value)
    assert "notify[0].on[0]: 'fails'" in told and "notify[0].formt" in told and "due: '6:00'" in told
    assert "budget: -1" in told
    with pytest.raises(UserError, match=r"notify: expected a list"):
        load_job(str(shop("mapping", notify={"url": HOOK}).path))


def test_readers_need_no_variable_and_runs_do(shop: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one = shop(notify=[{"url": HOOK}])
    monkeypatch.delenv("TEST_HOOK", raising=False)
    assert api.runs(str(one.path)) == []
    for verb in (lambda: api.run(str(one.path)), lambda: api.check(str(one.path))):
        with pytest.raises(
            UserError, match=r"job.yaml:\d+ notify\[0\].url: '\$\{TEST_HOOK\}': .* TEST_HOOK is not set"
        ):
            verb()
    for bad in ("hooks.example.com/XyZ", "file:///etc/XyZ", "http://", "https://a b/XyZ", "http://[::1/XyZ"):
        monkeypatch.setenv("TEST_HOOK", bad)
        with pytest.raises(UserError) as refused:
            addresses(one.loaded.job.notify, one.loaded.document)
        assert "holds no http:// or https:// URL" in str(refused.value) and "XyZ" not in str(refused.value)
    monkeypatch.setenv("TEST_HOOK", SECRET)
    (found,) = addresses(one.loaded.job.notify, one.loaded.document)
    assert found.url == SECRET and "XyZ" not in repr(found)


def test_submit_says_that_the_cluster_needs_the_variable(shop: Make) -> None:
    from bizllm.jobs.submit import _warnings, night

    parcel = night(shop(notify=[{"url": HOOK}]).loaded, LAST, (), ())
    (said,) = (line for line in _warnings(parcel) if "notify" in line)
    assert "${TEST_HOOK} takes its value from the environment of the cluster" in said and "--set" not in said


# -- runs and checks ----------------------------------------------------------------------------------------------


def test_a_night_that_cannot_begin_is_told_once_and_a_typing_error_never(
    shop: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = shop(notify=[{"url": HOOK}], sources={"tickets": {"path": "gone", "key": ["ticket_id"]}})
    with listening() as hook:
        monkeypatch.setenv("TEST_HOOK", hook.url)
        for _ in range(2):
            with pytest.raises(UserError):
                api.run(str(one.path))
        (body,) = hook.take()
        assert (body["event"], body["job"], body["date"], body["state"]) == ("failed", "shop", str(LAST), "failed")
        assert "sources.tickets.path" in body["error"] and body["steps"] == []
        with pytest.raises(UserError, match="no such step"):
            api.run(str(one.path), date="2026-01-01", only=["nothing"])
        assert hook.take() == []


def test_a_catch_up_tells_too(shop: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one = shop(notify=[{"url": HOOK}], sources={"tickets": {"path": "gone", "key": ["ticket_id"]}})
    with listening() as hook:
        monkeypatch.setenv("TEST_HOOK", hook.url)
        for _ in range(2):
            with pytest.raises(UserError):
                api.catch_up(str(one.path))
        (body,) = hook.take()
        assert (body["event"], body["date"], body["state"]) == ("failed", str(LAST), "failed")
        assert "sources.tickets.path" in body["error"]


def test_check(shop: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one = shop(due="00:00", notify=[{"url": HOOK}])

    def checked(*args: str) -> tuple[int, dict[str, Any]]:
        done = CliRunner().invoke(app, ["check", str(one.path), "--json", *args])
        return done.exit_code, json.loads(done.stdout)

    with listening() as hook:
        monkeypatch.setenv("TEST_HOOK", hook.url)
        one.ran(LAST - timedelta(days=1))
        one.ran(LAST, "failed", error="no space", only="summary")
        one.ran(LAST, only="labels")
        status, found = checked()
        assert (status, found["state"], found["sent"], found["missed"]) == (1, "late", [0], 1)
        assert found["last_good"] == str(LAST - timedelta(days=1)) and "ended so: summary failed" in found["said"]
        status, found = checked()
        assert (status, found["state"], found["sent"]) == (1, "late", []), "once a night"
        if NOW.hour < 23:
            status, found = checked("--by", "23:59")
            assert (status, found["state"]) == (0, "waiting")
        one.ran(LAST, only="summary")
        status, found = checked()
        assert (status, found["state"], found["sent"]) == (0, "done", [0])
        assert [body["event"] for body in hook.take()] == ["late", "recovered"]
        assert checked()[1]["sent"] == []
        words = CliRunner().invoke(app, ["check", str(one.path)])
        assert words.stdout.startswith(f"shop for {LAST}: done, there since ")
        assert CliRunner().invoke(app, ["check", str(one.path), "--by", "24:00"]).exit_code == 2


def test_a_training_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.yaml"
    data = "data: {train: {path: gone, text: body, label: kind}}"
    path.write_text(f"name: kinds\nbase: builtin:minilm\nobjective: classification\n{data}\nnotify:\n  - url: {HOOK}\n")
    assert load_recipe(str(path)).recipe.notify[0].on == ["failed", "late", "recovered"]
    with listening() as hook:
        monkeypatch.setenv("TEST_HOOK", hook.url)
        with pytest.raises(UserError):
            api.finetune(str(path))
        (body,) = hook.take()
        assert (body["event"], body["job"], body["text"]) == ("failed", "kinds", "training of kinds: failed")
        assert "data.train.path" in body["error"]


def test_who_finds_the_lock_held_tells_nobody(shop: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one = shop(notify=[{"url": HOOK}])
    with listening() as hook, RunLock(lock_url(one.warehouse.path, "shop", LAST), holder="the other"):
        monkeypatch.setenv("TEST_HOOK", hook.url)
        with pytest.raises(LockHeld):
            api.run(str(one.path), date=str(LAST))
        assert hook.take() == []
