"""A night of bizllm as an Airflow DAG (3.x): copy it into the DAGs' folder and set the values below.

Workers need bizllm in an environment of its own (its libraries are not Airflow's), the job's folder, and the cluster's
token where Ray looks for it (RAY_AUTH_TOKEN_PATH). docs/deploy/schedule.md says what each choice here is for.
"""

from __future__ import annotations

import os
import re
import subprocess
from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.timetables.interval import CronDataIntervalTimetable

BIZLLM = os.environ.get("BIZLLM", "/opt/bizllm/bin/bizllm")
JOB = os.environ.get("BIZLLM_JOB", "/opt/bizllm/jobs/nightly.yaml")
ADDRESS = os.environ.get("BIZLLM_ADDRESS", "http://ray-head:8265")
TIMEZONE = "Asia/Shanghai"  # the job's own: it decides what last night is
AGAIN = timedelta(seconds=float(os.environ.get("BIZLLM_AGAIN_S", "600")))  # between attempts; each wait doubles
START = pendulum.datetime(2026, 1, 1, tz=TIMEZONE)  # the first night is this day's

FAILED, WRONG_INPUT, LOCKED, STOPPED = 1, 2, 3, 130


class BizllmNight(BaseOperator):
    """`bizllm submit --wait` for a date. A retry goes on from what was finished; a killed task stops its night."""

    template_fields = ("date",)

    def __init__(self, *, job: str, date: str, address: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.job, self.date, self.address = job, date, address
        self.process: subprocess.Popen[str] | None = None
        self.submission: str | None = None

    def execute(self, context: Any) -> str | None:
        """Returns the submission's id."""
        command = [BIZLLM, "submit", self.job, "--address", self.address, "--date", self.date, "--wait"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.info("%s", line.rstrip())
            if found := re.match(r"submitted +(\S+) to ", line):
                self.submission = found[1]
        status = self.process.wait()
        if status in (WRONG_INPUT, STOPPED):  # the same input is as wrong again; who stopped it meant it
            raise AirflowFailException(f"bizllm ended with status {status}: see its last lines above")
        if status:  # FAILED: it may pass. LOCKED: the other run makes this night, and the retry finds it unchanged
            raise AirflowException(f"bizllm ended with status {status}: see its last lines above")
        return self.submission

    def on_kill(self) -> None:
        """Marked failed or cleared in the user interface, timed out, or the worker ends."""
        if self.submission is not None:
            subprocess.run([BIZLLM, "stop", self.submission, "--address", self.address], check=False)
        if self.process is not None:
            self.process.terminate()


with DAG(
    dag_id="bizllm_nightly",
    schedule=CronDataIntervalTimetable("30 1 * * *", timezone=TIMEZONE),  # 1:30 there, whatever the clocks do
    start_date=START,
    catchup=True,  # a night that was missed has a run of its own, of its own date
    max_active_runs=1,  # one after the other, the oldest first
    default_args={
        "retries": 3,
        "retry_delay": AGAIN,
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(hours=1),
        "execution_timeout": timedelta(hours=6),
    },
    tags=["bizllm"],
) as dag:
    BizllmNight(
        task_id="night",
        job=JOB,
        address=ADDRESS,
        date=f"{{{{ data_interval_start.in_timezone('{TIMEZONE}').to_date_string() }}}}",
    )
