"""Arguments and flags that several verbs take."""

from __future__ import annotations

from typing import Annotated

import typer

JobPath = Annotated[str, typer.Argument(metavar="JOB.yaml", help="The job file.", show_default=False)]
Run = Annotated[str | None, typer.Argument(metavar="RUN", help="A run_id; by default the newest.")]
RunDate = Annotated[
    str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="Run date; yesterday in the job's time zone.")
]
CatchUp = Annotated[
    bool, typer.Option("--catch-up", help="Run every night up to last night that is missing, the oldest first.")
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="YYYY-MM-DD", help="With --catch-up: the first date that may be missing."),
]
Most = Annotated[
    int | None, typer.Option("--most", metavar="N", help="With --catch-up: so many nights at most; 14 by default.")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="PLACE=VALUE", help="Override a setting: steps.sales.horizon=14.")
]
Address = Annotated[
    str | None, typer.Option("--address", metavar="auto|ray://…", help="A running Ray; by default a local one starts.")
]
Dashboard = Annotated[
    str | None,
    typer.Option("--address", metavar="http://HEAD:8265", help="The head's dashboard; else RAY_API_SERVER_ADDRESS."),
]
