"""Alerts and dashboard against what is really scraped.

That is an exporter over pasts that were written for each alert, and the recorded scrape of a running night, which
tests/jobs/test_watched.py holds against a new one.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from bizllm.jobs.lock import RunLock, lock_url
from bizllm.watch.exporter import Exporter
from bizllm.watch.metrics import OF_RUNS
from tests.watch.conftest import LAST, Shop

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "infra/monitoring"
RULES, DASHBOARD = MONITORING / "bizllm.rules.yaml", MONITORING / "dashboard.json"
RECORDED = Path(__file__).parent / "recorded/run.prom"
Make = Callable[..., Shop]


def run(*command: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


# -- the files ----------------------------------------------------------------------------------------------------


def test_the_files_are_what_the_programs_take(promtool: str, amtool: str) -> None:
    for command in (
        (promtool, "check", "rules", RULES),
        (promtool, "test", "rules", MONITORING / "bizllm.rules.test.yaml"),
        (promtool, "check", "config", MONITORING / "prometheus.yml"),
        (amtool, "check-config", MONITORING / "alertmanager.yml"),
    ):
        done = run(*command)
        assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_name_a_place_of_the_runbook() -> None:
    for name, rule in alerts().items():
        anchor = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{anchor}"
        assert rule["labels"]["severity"] in ("warning", "critical")
    routed = (MONITORING / "alertmanager.yml").read_text()
    for name in re.findall(r"Bizllm\w+", routed):
        assert name in alerts()


def test_alertmanager_sends_the_worst_to_who_is_on_call(amtool: str) -> None:
    def receiver(**labels: str) -> str:
        words = [f"{name}={value}" for name, value in labels.items()]
        return run(
            amtool, "config", "routes", "test", "--config.file", MONITORING / "alertmanager.yml", *words
        ).stdout.strip()

    assert receiver(severity="critical", job_name="shop") == "on-call"
    assert receiver(severity="warning", job_name="shop") == "team"


# -- names --------------------------------------------------------------------------------------------------------


def scraped_names(text: str) -> set[str]:
    return set(re.findall(r"^(\w+)\{", text, re.M))


def test_every_metric_of_rules_and_dashboard_is_in_a_real_scrape(shop: Make) -> None:
    one = shop(due="00:00", budget=3)
    for days in range(5):
        one.ran(LAST - timedelta(days=days), cost=0.1)
    with RunLock(lock_url(one.warehouse.path, "shop", LAST)):
        exporter = Exporter([one.loaded.job])
        exporter.refresh()
    there = scraped_names(exporter.text()) | scraped_names(RECORDED.read_text())
    given_later = {f"ray_{metric.name}" for metric in OF_RUNS}  # the recording is of the middle of a night
    for file in (RULES, DASHBOARD):
        used = set(re.findall(r"\b(?:ray_)?bizllm_\w+", file.read_text()))
        assert used and used <= there | given_later, f"{file.name}: {used - there}"


def test_every_query_of_the_dashboard_parses(promtool: str, tmp_path: Path) -> None:
    board = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    queries += [note["expr"] for note in board["annotations"]["list"]]
    assert len(queries) > 25
    rules = [{"record": f"panel:{i}", "expr": expr.replace("$job_name", "shop")} for i, expr in enumerate(queries)]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = run(promtool, "check", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_holds_together() -> None:
    """What Grafana needs to import it: a schema version, ids of their own, places of their own, its variables."""
    board = json.loads(DASHBOARD.read_text())
    assert board["schemaVersion"] >= 36 and board["uid"] == "bizllm-nights" and "id" not in board
    panels = board["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(ids) == len(set(ids))
    variables = {variable["name"] for variable in board["templating"]["list"]}
    assert variables == {"datasource", "job_name"}
    assert set(re.findall(r"\$\{?([a-z_]+)\}?", DASHBOARD.read_text())) - {"__all"} <= variables
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


# -- each alert on what was scraped -------------------------------------------------------------------------------

SCRAPED_AT_S = 3600.0  # when in promtool's time the scrape was; its clock begins at 0


def series(text: str, now: float, hold: int = 60) -> Iterator[dict[str, str]]:
    """The scrape's samples, the same at every minute; points in time moved so that `now` is SCRAPED_AT_S."""
    for name, labels, value in re.findall(r"^(\w+)(\{.*\}) (\S+)$", text, re.M):
        number = float(value)
        if name.endswith("_timestamp_seconds") and number:
            number += SCRAPED_AT_S - now
        yield {"series": name + labels, "values": f"{number:f}x{60 + hold}"}


def scrape(shop: Shop) -> str:
    exporter = Exporter([shop.loaded.job])
    exporter.refresh()
    return exporter.text()


def past(shop: Shop, **last: Any) -> str:
    """A good night with these facts, after three in the ledger that took 100 s a step."""
    for days in (3, 2, 1):
        shop.ran(LAST - timedelta(days=days), seconds=100.0, publish=False)
    shop.ran(LAST, **{"seconds": 101.0, **last})
    return scrape(shop)


def failed(make: Make) -> str:
    one = make()
    one.ran(LAST, "failed", error="boom")
    return scrape(one)


def poor(make: Make) -> str:
    """Rejected, slow and dear."""
    return past(make(budget=5), rows_out=9, rows_rejected=1, seconds=1000.0, cost=3.0)


def late(make: Make, missing: int = 1) -> str:
    one = make(due="00:00")
    one.ran(LAST - timedelta(days=missing))
    return scrape(one)


def unpublished(make: Make) -> str:
    one = make()
    one.ran(LAST, publish=False)
    return scrape(one)


def died(make: Make) -> str:
    one = make()
    lock = RunLock(lock_url(one.warehouse.path, "shop", LAST))
    with lock:
        text = scrape(one)
    return text


def unreadable(make: Make) -> str:
    one = make()
    one.ran(LAST)
    (Path(one.warehouse.path) / "catalog.db").write_bytes(b"no database at all" * 400)
    return scrape(one)


# alert → (the scrape, minutes after it, labels of what fires)
JOB, STEP = {"job_name": "shop"}, {"job_name": "shop", "step": "summary"}
FIRES: dict[str, tuple[Callable[[Make], str], int, dict[str, str]]] = {
    "BizllmNightFailed": (failed, 10, JOB | {"state": "failed"}),
    "BizllmNightLate": (late, 10, JOB),
    "BizllmNightsMissed": (lambda make: late(make, 3), 10, JOB),
    "BizllmNightLagging": (lambda make: late(make, 1), 48 * 60 + 10, JOB),
    "BizllmRejectShareHigh": (poor, 1, STEP),
    "BizllmStepSlow": (poor, 1, STEP),
    "BizllmNothingPublished": (unpublished, 10, STEP),
    "BizllmOverBudget": (poor, 1, JOB),
    "BizllmRunDied": (died, 40, JOB),
    "BizllmRunHung": (lambda make: RECORDED.read_text(), 40, JOB),
    "BizllmExporterDown": (failed, 10, {}),
    "BizllmJobUnreadable": (unreadable, 15, JOB),
}


def test_each_alert_fires_on_what_was_scraped_and_none_in_a_good_night(
    shop: Make, promtool: str, tmp_path: Path
) -> None:
    assert FIRES.keys() == alerts().keys()
    up = {"series": 'up{job="bizllm"}', "values": "1x120"}
    tests, texts = [], {}
    for name, (make, minutes, labels) in FIRES.items():
        text = texts.get(make) or make(lambda name=name, **settings: renamed(shop(name.lower(), **settings)))
        texts[make] = text
        now = recorded_at(text) if name == "BizllmRunHung" else time.time()
        by = labels or {"alertname": name}
        wanted = [by, {**by, "step": "labels"}] if "step" in by else [by]  # both steps have the same past
        firing = f'ALERTS{{alertname="{name}", alertstate="firing"}}'
        inputs = [*series(text, now, minutes), *([up] if name != "BizllmExporterDown" else [])]
        tests.append(case(name, inputs, f"count by ({', '.join(by)}) ({firing})", wanted, 60 + minutes))
    quiet = [(past(renamed(shop("good"))), time.time()), (RECORDED.read_text(), recorded_at(RECORDED.read_text()))]
    for text, now in quiet:
        tests.append(case("quiet", [up, *series(text, now)], "count by (alertname) (ALERTS)", [], 66))
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = run(promtool, "test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def case(name: str, inputs: list[Any], expr: str, wanted: list[dict[str, str]], minute: int) -> dict[str, Any]:
    samples = [{"labels": braced(labels), "value": 1} for labels in wanted]
    asked = {"expr": expr, "eval_time": f"{minute}m", "exp_samples": samples}
    return {"name": name, "interval": "1m", "input_series": inputs, "promql_expr_test": [asked]}


def braced(labels: dict[str, str]) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def renamed(shop: Shop) -> Shop:
    """In a folder of its own, with the job's name as in all others."""
    job = yaml.safe_load(shop.path.read_text())
    shop.path.write_text(yaml.safe_dump({**job, "name": "shop"}))
    return shop


def recorded_at(text: str) -> float:
    (at,) = re.findall(r"^ray_bizllm_run_progress_timestamp_seconds\{.*\} (\S+)$", text, re.M)
    return float(at)


def test_the_docs_have_every_alert() -> None:
    page = (ROOT / "docs/deploy/monitoring.md").read_text()
    rows = dict(re.findall(r"^\| `(Bizllm\w+)` \| .* \| (\w+) \|$", page, re.M))
    assert rows == {name: rule["labels"]["severity"] for name, rule in alerts().items()}
