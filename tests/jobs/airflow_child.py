"""Run by tests/jobs/test_schedulers.py with Airflow's Python: `run DUE`, `timeout DUE`, `nights ZONE…`."""

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pendulum


def run(due: str, timeout_s: float | None = None) -> dict:
    """One DAG run that is due then, as `airflow dags test` does it."""
    subprocess.run([str(Path(sys.executable).parent / "airflow"), "db", "migrate"], check=True, capture_output=True)
    from airflow.utils.cli import get_bagged_dag

    dag = get_bagged_dag(bundle_names=None, dag_id="bizllm_nightly")
    if timeout_s:
        dag.get_task("night").execution_timeout = timedelta(seconds=timeout_s)
    result = dag.test(logical_date=pendulum.parse(due))
    (task,) = result.get_task_instances()
    return {"run": str(result.state), "task": str(task.state), "tries": task.try_number}


def nights(zones: list[str]) -> dict:
    """The dates that a year of the schedule asks for, by zone."""
    from airflow.timetables.base import TimeRestriction
    from airflow.timetables.interval import CronDataIntervalTimetable

    sys.path.insert(0, str(Path(__file__).parents[2] / "cluster/airflow"))
    import bizllm_nightly

    said = {}
    for zone in zones:
        timetable = CronDataIntervalTimetable(bizllm_nightly.dag.timetable.summary, timezone=zone)
        first, last = pendulum.datetime(2026, 1, 1, tz=zone), pendulum.datetime(2026, 12, 31, 23, 59, tz=zone)
        within = TimeRestriction(earliest=first, latest=last, catchup=True)
        dates, before = [], None
        while info := timetable.next_dagrun_info(last_automated_data_interval=before, restriction=within):
            before = info.data_interval
            dates.append(before.start.in_timezone(zone).to_date_string())
        said[zone] = dates
    return said


what, *rest = sys.argv[1:]
answer = nights(rest) if what == "nights" else run(rest[0], 15 if what == "timeout" else None)
print(json.dumps(answer))
