"""A real night that is watched by all means at once: Ray's metrics while it works, a trace, messages, the exporter."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from bizllm import api
from bizllm.jobs.observe import Observer
from bizllm.watch.live import RayMetrics
from bizllm.watch.metrics import OF_NIGHTS, OF_RUNS
from tests.listeners import Listener, attributes, listening, spans_of, wait_for

NIGHT = "2026-03-10"
PARENT = "4bf92f3577b34da6a3ce929d0e0e4736"
RECORDED = Path(__file__).parents[1] / "watch/recorded/run.prom"
Job = Callable[..., str]
pytestmark = pytest.mark.usefixtures("local_ray")
IN_THE_MIDDLE = {  # of the night, after its first unit
    ("ray_bizllm_run_alive", "shop"): 1.0,
    ("ray_bizllm_run_units", "shop", "summary", "done"): 1.0,
    ("ray_bizllm_run_units", "shop", "summary", "total"): 3.0,
    ("ray_bizllm_run_rows", "shop", "summary", "in"): 4.0,
    ("ray_bizllm_run_stage", "shop", "summary", "answer"): 1.0,
    ("ray_bizllm_run_step_state", "shop", "summary", "running"): 1.0,
}


def scrape() -> str:
    """Our metrics as the agent of this Ray's node gives them."""
    import ray

    port = ray.nodes()[0]["MetricsExportPort"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return "".join(f"{line}\n" for line in lines if "ray_bizllm_" in line)


def values(text: str) -> dict[tuple[str, ...], float]:
    """(name, our labels' values …) → value."""
    found = {}
    for name, labels, value in re.findall(r"^(\w+)\{(.*)\} (\S+)$", text, re.M):
        given = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        own = [given[key] for key in ("job_name", "step", "stage", "kind", "state") if key in given]
        found[(name, *own)] = float(value)
    return found


def scraped(wanted: Mapping[tuple[str, ...], float], but: Collection[str] = ()) -> str:
    """A scrape in which these values and all metrics are, or nothing."""
    text = scrape()
    found = values(text)
    whole = {f"ray_{metric.name}" for metric in OF_RUNS if metric.name not in but} <= {name for name, *_ in found}
    return text if whole and all(found.get(key) == value for key, value in wanted.items()) else ""


class Pausing(Observer):
    """Holds the night after its first unit until that is in a scrape, and keeps that scrape."""

    text = ""

    def unit_done(self, step: str, done: int, total: int, rows: int, rejected: int) -> None:
        if step == "summary" and done == 1 and not self.text:
            self.text = wait_for(lambda: scraped(IN_THE_MIDDLE, but={"bizllm_run_publish_seconds"}), 60)


class Night:
    """What was seen of one night. live: the scrape in its middle."""

    def __init__(self, path: str, result: dict[str, Any], live: str, hook: Listener, spans: list[Any]) -> None:
        self.path, self.result, self.live, self.hook, self.spans = path, result, live, hook, spans


@pytest.fixture(scope="module")
def night(local_ray: None, tmp_path_factory: pytest.TempPathFactory, shop_in: Callable[[Path], Job]) -> Iterator[Night]:
    path = shop_in(tmp_path_factory.mktemp("watched"))(
        steps__summary__model="builtin:minilm",
        steps__summary__engine="torch",
        due="06:00",
        budget=9.0,
        notify=[{"url": "${HOOK}", "format": "slack", "on": ["done", "failed"]}, {"url": "${HOOK}", "on": ["late"]}],
        runtime={"unit_rows": 4, "workers": 1, "concurrent_steps": 1, "cpu_hour_price": 1.0},
    )
    seen = Pausing()
    with listening("/T0/secret") as hook, listening(read=spans_of) as collector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOOK", hook.url)
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("TRACEPARENT", f"00-{PARENT}-00f067aa0ba902b7-01")
        result = api.run(path, date=NIGHT, observer=seen).to_dict()
        assert set(collector.paths) == {"/v1/traces"}
        if os.environ.get("BIZLLM_RECORD") == "1":  # write the recording anew, without what names a machine
            own = re.sub(r'NodeAddress="[^"]*"', 'NodeAddress="192.0.2.1"', seen.text)
            RECORDED.write_text(re.sub(r'SessionName="[^"]*"', 'SessionName="session"', own))
        yield Night(path, result, seen.text, hook, [span for body in collector.got for span in body])


def test_a_scrape_of_a_running_night_tells_how_far_it_is(night: Night) -> None:
    live = values(night.live)
    assert live.items() >= IN_THE_MIDDLE.items()
    assert 0 <= time.time() - live["ray_bizllm_run_progress_timestamp_seconds", "shop"] < 120
    assert live["ray_bizllm_run_model_seconds_total", "shop", "summary"] > 0
    assert live["ray_bizllm_run_tokens_total", "shop", "summary"] > 0
    # What is there has a help text and a type that Prometheus knows, and Ray's own labels name the process.
    assert "# HELP ray_bizllm_run_units " in night.live and "# TYPE ray_bizllm_run_tokens_total counter" in night.live
    assert all('WorkerId="' in line for line in night.live.splitlines() if line[0] != "#")


def test_the_recorded_scrape_is_like_this_one(night: Night) -> None:
    """Alerts and dashboard are tested against the recording, in a process without a Ray."""

    def series(text: str) -> set[tuple[str, tuple[str, ...]]]:
        return {
            (name, tuple(sorted(set(re.findall(r'(\w+)="', labels)))))
            for name, labels in re.findall(r"^(\w+)\{(.*)\} ", text, re.M)
        }

    after = wait_for(lambda: scraped({("ray_bizllm_run_alive", "shop"): 0.0}), 60)
    end = values(after)
    assert end["ray_bizllm_run_step_state", "shop", "segments", "done"] == 0, "nothing stays of a night that is over"
    assert end["ray_bizllm_run_progress_timestamp_seconds", "shop"] == 0
    # Nights of other tests in this process have published.
    middle = {one for one in series(night.live) if one[0] != "ray_bizllm_run_publish_seconds"}
    assert series(RECORDED.read_text()) == middle
    told = {name.removeprefix("ray_") for name, _ in series(night.live + after)}
    assert told == {metric.name for metric in OF_RUNS}, "every metric of the table was scraped"


@pytest.mark.slow
def test_a_run_that_hangs_is_seen_as_long_as_it_does() -> None:
    """Ray forgets a gauge that is not set again; the alert on such runs goes by two."""
    run, alive = RayMetrics(), ("ray_bizllm_run_alive", "hung")
    run.run_started("hung", "r1", date(2026, 3, 10), ["summary"])
    wait_for(lambda: values(scrape()).get(alive) == 1, 60)
    for _ in range(60):
        time.sleep(1)
        found = values(scrape())
        assert found[alive] == 1 and found["ray_bizllm_run_progress_timestamp_seconds", "hung"] < time.time()
    run.ended()
    wait_for(lambda: values(scrape()).get(alive) == 0, 60)
    wait_for(lambda: alive not in values(scrape()), 60)


def test_the_trace_is_the_schedulers(night: Night) -> None:
    spans = {span.span_id: span for span, _ in night.spans}
    assert {span.trace_id.hex() for span in spans.values()} == {PARENT}
    (run,) = (span for span in spans.values() if span.name == "run shop")
    assert run.parent_span_id.hex() == "00f067aa0ba902b7"
    assert attributes(run) == {
        "bizllm.job": "shop",
        "bizllm.date": NIGHT,
        "bizllm.run_id": night.result["run_id"],
        "bizllm.state": "done",
    }
    steps = {span.name: span for span in spans.values() if span.parent_span_id == run.span_id}
    assert steps.keys() == {"step summary", "step segments"}
    counts = {name: night.result["steps"][0][name] for name in ("rows_in", "rows_out", "rows_rejected", "tokens")}
    assert counts["tokens"] > 0
    said = attributes(steps["step summary"])
    assert {name: said[f"bizllm.{name}"] for name in counts} == counts
    for step, stages in (("summary", {"answer", "audit", "publish"}), ("segments", {"scatter", "fit", "publish"})):
        parent = steps[f"step {step}"]
        under = {span.name: span for span in spans.values() if span.parent_span_id == parent.span_id}
        assert stages <= under.keys()
        for span in under.values():
            assert parent.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
            assert span.end_time_unix_nano <= parent.end_time_unix_nano
    assert {resource["service.name"] for _, resource in night.spans} == {"bizllm"}


def test_the_message_of_a_good_night(night: Night) -> None:
    (slack,) = night.hook.take()  # the other receiver wants to hear of late nights only
    assert slack["text"].startswith(f"shop for {NIGHT}: done: ")
    shown = "\n".join(block["text"]["text"] for block in slack["blocks"])
    assert "*summary* done: 12 of 12 rows, 0 rejected" in shown and night.result["run_id"] in shown
    told = json.dumps(slack) + night.live + "".join(f"{span.name} {attributes(span)}" for span, _ in night.spans)
    assert not re.search(r"parcel|快递|\bc\d+\b|2026-03-10-\d", told), "neither texts nor keys"
    assert "secret" not in told


def test_the_exporter_tells_the_same_as_the_run(night: Night) -> None:
    exporter = api.metrics(night.path)
    found = {(name, *labels.values()): value for name, labels, value in exporter.values()}
    for step in night.result["steps"]:
        own = ("shop", step["step"])
        assert {k: found["bizllm_step_rows", *own, k] for k in ("in", "out", "rejected", "reused")} == {
            k: step[f"rows_{k}"] for k in ("in", "out", "rejected", "reused")
        }
        assert found["bizllm_step_published_records", *own] == step["records_out"] > 0
        assert found["bizllm_step_cost", *own] == pytest.approx(step["cost"])
        assert found["bizllm_step_seconds", *own] == step["seconds"]
        assert found["bizllm_step_tokens", *own] == step["tokens"]
        assert found["bizllm_step_state", *own, "done"] == 1
    assert found["bizllm_night_state", "shop", "done"] == 1
    assert {name for name, *_ in found} <= {metric.name for metric in OF_NIGHTS}
    assert "bizllm_lock_taken_timestamp_seconds" not in {name for name, *_ in found}, "the run gave its lock back"
