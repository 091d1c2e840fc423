"""A headless Chromium that tells what it saw of a page, and a night to show it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pyarrow as pa
import pytest

from bizllm.report.data import (
    AuditResult,
    CategoryPanel,
    RejectCount,
    RunReport,
    SamplesPanel,
    SeriesPanel,
    StepReport,
    TablePanel,
)
from bizllm.report.html import render

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
]


@dataclass
class Visit:
    """What the browser said: the script's value, every console message, error and request, and a picture."""

    value: Any = None
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    png: bytes = b""


@pytest.fixture(scope="session")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Visit]]:
    """visit(html, script, width=, dark=, picture=): open the page, run the script in it, say what happened."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        reason = f"no Chromium on PATH (looked for {', '.join(_NAMES)})"
        if os.environ.get("BIZLLM_REQUIRE_CHROMIUM") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    profile, pages = tmp_path_factory.mktemp("profile"), tmp_path_factory.mktemp("pages")
    log = (profile.parent / "chromium.log").open("wb")
    process = subprocess.Popen(
        [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    numbers = itertools.count()
    try:
        endpoint = _endpoint(profile / "DevToolsActivePort", process)

        def visit(
            html: str, script: str = "null", *, width: int = 1280, dark: bool = False, picture: bool = False
        ) -> Visit:
            page = pages / f"{next(numbers)}.html"
            page.write_text(html, encoding="utf-8")
            return asyncio.run(asyncio.wait_for(_visit(endpoint, page.as_uri(), script, width, dark, picture), 60))

        yield visit
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()


def _endpoint(announced: Path, process: subprocess.Popen[bytes], patience_s: float = 30) -> str:
    until = time.monotonic() + patience_s
    while time.monotonic() < until and process.poll() is None:
        if announced.exists() and len(lines := announced.read_text().split()) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.05)
    pytest.fail("Chromium did not open its DevTools port")


async def _visit(endpoint: str, url: str, script: str, width: int, dark: bool, picture: bool) -> Visit:
    """One tab over the Chrome DevTools Protocol; its events are noted while answers are awaited."""
    seen, loaded, ids = Visit(), False, itertools.count(1)

    async with aiohttp.ClientSession() as http, http.ws_connect(endpoint, max_msg_size=0) as socket:

        def note(event: dict[str, Any]) -> None:
            nonlocal loaded
            params = event.get("params", {})
            match event.get("method"):
                case "Page.loadEventFired":
                    loaded = True
                case "Network.requestWillBeSent":
                    seen.requests.append(params["request"]["url"])
                case "Log.entryAdded":
                    seen.complaints.append(params["entry"]["text"])
                case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                    seen.complaints.append(str(params))

        async def call(method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
            number = next(ids)
            await socket.send_json(
                {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
            )
            while (answer := await socket.receive_json()).get("id") != number:
                note(answer)
            assert "error" not in answer, answer
            result: dict[str, Any] = answer["result"]
            return result

        target = (await call("Target.createTarget", url="about:blank"))["targetId"]
        tab = (await call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await call(f"{domain}.enable", tab)
        await call(
            "Emulation.setDeviceMetricsOverride", tab, width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await call("Emulation.setEmulatedMedia", tab, features=scheme)
        await call("Page.navigate", tab, url=url)
        while not loaded:
            note(await socket.receive_json())
        answer = await call("Runtime.evaluate", tab, expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        seen.value = answer["result"].get("value")
        if picture:
            shot = await call("Page.captureScreenshot", tab, format="png", captureBeyondViewport=True)
            seen.png = base64.b64decode(shot["data"])
        await call("Target.closeTarget", targetId=target)
    return seen


# Contrast of every piece of text with what lies behind it: WCAG 2.2, relative luminance and contrast ratio.
FAINT = """(() => {
    const parse = c => { const v = c.match(/[\\d.]+/g).map(Number); return v.length < 4 ? [...v, 1] : v; };
    const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3]));
    const light = c => c.slice(0, 3).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const behind = e => {
        const layers = [];
        for (; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
        return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
    };
    const found = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let n = 0;
    while (walk.nextNode()) {
        const e = walk.currentNode.parentElement;
        if (!walk.currentNode.data.trim() || e.closest('style')) continue;
        const look = getComputedStyle(e), back = behind(e);
        const front = over(parse(e.closest('svg') ? look.fill : look.color), back);
        const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
        n += 1;
        if ((a + .05) / (b + .05) < 4.5) found.push([e.outerHTML.slice(0, 80), ((a + .05) / (b + .05)).toFixed(2)]);
    }
    return {n, found, page: getComputedStyle(document.body).backgroundColor};
})()"""


@pytest.fixture(scope="session")
def faint() -> str:
    """A script that tells which text of a page can hardly be read."""
    return FAINT


DAY = date(2026, 11, 22)


def _series_panel(names: list[str], days: int = 90, horizon: int = 14) -> SeriesPanel:
    """Made-up daily sales, each series with its own level, week and error."""
    rng = np.random.default_rng(7)
    past = [DAY - timedelta(days=days - 1 - d) for d in range(days)]
    ahead = [DAY + timedelta(days=1 + d) for d in range(horizon)]
    history: dict[str, list[Any]] = {"series": [], "time": [], "value": [], "size": [], "error": []}
    forecast: dict[str, list[Any]] = {name: [] for name in ("series", "time", "mean", "q10", "q50", "q90")}
    for i, name in enumerate(names):
        level = 4_000 / 3**i
        week = 1 + 0.2 * np.sin(2 * np.pi * np.arange(days + horizon) / 7)
        history["series"] += [name] * days
        history["time"] += past
        history["value"] += list(level * week[:days] * rng.gamma(20, 1 / 20, days))
        history["size"] += [level * days] * days
        history["error"] += [0.5 + 0.1 * i] * days
        mean = level * week[days:]
        forecast["series"] += [name] * horizon
        forecast["time"] += ahead
        for column, factor in (("mean", 1), ("q10", 0.8), ("q50", 0.99), ("q90", 1.25)):
            forecast[column] += list(mean * factor)
    return SeriesPanel("day", pa.table(history), pa.table(forecast), "units", "MASE")


def _report(steps: list[StepReport], state: Any = "done", **changes: Any) -> RunReport:
    values: dict[str, Any] = {
        "job": "retail_nightly",
        "run_id": "20261123T021403-7f3a",
        "run_date": DAY,
        "state": state,
        "started_at": datetime(2026, 11, 22, 18, 14, 3, tzinfo=UTC),
        "seconds": 67.2,
        "timezone": "Asia/Shanghai",
        "steps": steps,
        "versions": {"bizllm": "0.1.0"},
        "warehouse": "s3://lake/warehouse",
    }
    return RunReport(**values | changes)


def _explained(text: Callable[[str], str]) -> pa.Table:
    """Two texts with the words that carried their labels."""
    said = ["My parcel is three days late and nobody answers.", "快递晚了三天，我要退款。"]
    spans = [[(24, 28, 2.4), (3, 9, 1.1), (40, 47, 0.3)], [(9, 11, 3.1), (0, 3, 0.9)]]
    return pa.table(
        {
            "title": [text("delivery"), text("退款")],
            "source": [text(one) for one in said],
            "result": [text("delivery"), text("退款")],
            "score": [0.93, 0.88],
            "why": [[{"start": a, "end": b, "weight": w} for a, b, w in of] for of in spans],
        }
    )


def _night(text: Callable[[str], str] = lambda benign: benign) -> RunReport:
    """A night with a failed step and every kind of panel; `text` may turn each string on it into another."""
    complaint = (
        "The parcel left Leipzig on the 5th. Since then nothing has moved. "
        "I would rather have my money back. 我想退货。客服说可以换新。"
    )
    steps = [
        StepReport(
            "sales_forecast",
            "forecast",
            "retail_nightly.sales_forecast",
            "done",
            *(64, 63, 1, 0, 1_764, 0, 22.8),
            audits=[AuditResult(text("quantiles in order"), 1_764, 0, text("q10 ≤ q50 ≤ q90"))],
            rejects=[RejectCount("group", text("too_short"), 1, text("fewer than 4 values"))],
            panel=_series_panel([text(name) for name in ("上海 · 豆浆", "Berlin · Espresso", "Oslo · Socks")]),
        ),
        StepReport(
            "customer_segment",
            "segment",
            "retail_nightly.customer_segment",
            "done",
            *(1_038, 1_038, 0, 0, 1_038, 0, 4.2),
            panel=CategoryPanel(
                text("segment"),
                pa.table({"label": [text("regulars"), text("一次性顾客")], "count": [600, 438]}),
                pa.table(
                    {
                        "previous": [text("regulars"), text("一次性顾客"), text("regulars"), None],
                        "label": [text("regulars"), text("一次性顾客"), text("一次性顾客"), text("regulars")],
                        "count": [590, 400, 38, 10],
                    }
                ),
                SamplesPanel(_explained(text)),
            ),
        ),
        StepReport(
            "ticket_summary",
            "summarize",
            "retail_nightly.ticket_summary",
            "unchanged",
            *(1_642, 1_634, 8, 1_634, 1_634, 0, 0.3),
            model=text("builtin:minilm"),
            caveat=text("Of 77 intents 62 % right."),
            panel=SamplesPanel(
                pa.table(
                    {
                        "title": [text("T-10482")],
                        "source": [text(complaint)],
                        "result": [text("I would rather have my money back. 客服说可以换新。")],
                        "score": [0.81],
                    }
                )
            ),
        ),
        StepReport(
            "ticket_label",
            "classify",
            "retail_nightly.ticket_label",
            "failed",
            *(1_642, 1_642, 0, 0, 0, 0, 3.0),
            error=text("audit 'probability in [0, 1]' broke"),
            audits=[AuditResult(text("probability in [0, 1]"), 1_642, 12)],
            panel=TablePanel(pa.table({"ticket_id": [1, 2], text("label"): [text("delivery"), None]})),
        ),
        StepReport("reorder", "answer", "retail_nightly.reorder", "skipped", error=text("reads ticket_label")),
    ]
    return _report(steps, "failed", warehouse=text("s3://lake/warehouse"), versions={text("ray"): text("2.60.0")})


@pytest.fixture(scope="session")
def series_panel() -> Callable[..., SeriesPanel]:
    return _series_panel


@pytest.fixture(scope="session")
def report() -> Callable[..., RunReport]:
    return _report


@pytest.fixture(scope="session")
def page() -> str:
    """The benign night, rendered."""
    return render(_night())


@pytest.fixture(scope="session")
def night() -> Callable[..., RunReport]:
    return _night
