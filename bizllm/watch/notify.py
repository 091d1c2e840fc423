"""Messages to webhooks: in bounded time, a few tries each, each event of a night told once, no failure but a log line.

What was told of a date lies beside its lock in the warehouse, so that the retries of a scheduler, and a check every ten
minutes, do not tell it again: a list of events by receiver, dropped when the night is there.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from bizllm import logs
from bizllm.jobs.notices import Address
from bizllm.receivers import Event, Receiver
from bizllm.tables import storage
from bizllm.watch.messages import Message

LIMIT_S = 8.0  # for all receivers together, what was told before included: a night ends so much later at most
TRY_S = 2.5
WAITS_S = (0.5, 1.0)  # between tries
_AGAIN = (408, 425, 429, 500, 502, 503, 504)

_log = logs.get(__name__)


@dataclass(frozen=True)
class Told:
    """What became of a message. sent, unsent: receivers, by their place in `notify`."""

    sent: tuple[int, ...] = ()
    unsent: tuple[int, ...] = ()


def told_url(warehouse: str, job: str, day: date) -> str:
    """Where it is kept what was told of a night."""
    return storage.join(warehouse, "_bizllm", job, "told", f"{day.isoformat()}.json")


def tell(addresses: Sequence[Address], message: Message, told: str | None = None) -> Told:
    """Send a message to those who want it and have not heard it; `recovered` instead of `done` to who heard of trouble.

    told: where what was told before is kept; None: it is always sent. Takes at most LIMIT_S, and never raises.
    """
    if not addresses:
        return Told()
    result: list[Told] = []

    def work() -> None:
        with suppress(Exception):
            result.append(_told(addresses, message, told, time.monotonic() + LIMIT_S - 0.5))

    # A name that does not resolve, or a store that hangs, can't be interrupted: its thread is left behind.
    thread = threading.Thread(target=work, name="notify", daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    if not result:
        _log.warning("notice_not_sent", notice=message.event, reason=f"nothing was heard within {LIMIT_S:.0f} s")
    return result[0] if result else Told(unsent=tuple(range(len(addresses))))


def news(event: Event, receiver: Receiver, heard: Sequence[str], made: bool = True) -> Event | None:
    """The event that a receiver is told of, if any. heard: of this night so far. event: `done` may be `recovered`.
    made: whether the run made the night, which was not there already."""
    if event in ("failed", "late"):
        return event if event in receiver.on and event not in heard else None
    if heard and "recovered" in receiver.on:
        return "recovered"
    return "done" if "done" in receiver.on and (made or heard) else None


def _told(addresses: Sequence[Address], message: Message, told: str | None, deadline: float) -> Told:
    heard = _heard(told)
    made = message.state != "unchanged"
    todo = {
        i: event
        for i, address in enumerate(addresses)
        if (event := news(message.event, address.receiver, heard.get(str(i), ()), made)) is not None
    }
    reached: dict[int, str | None] = {}

    def post(i: int, event: Event) -> None:
        body = replace(message, event=event).body(addresses[i].receiver.format)
        reached[i] = _post(addresses[i].url, body, deadline)

    threads = [threading.Thread(target=post, args=one, daemon=True) for one in todo.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    sent = tuple(i for i in todo if i in reached and reached[i] is None)
    unsent = tuple(i for i in todo if i not in sent)
    for i in unsent:
        reason = reached.get(i) or "no answer in time"
        _log.warning("notice_not_sent", receiver=i, notice=todo[i], reason=reason)
    if told is not None:
        _keep(told, message.event, heard, [i for i in range(len(addresses)) if i not in unsent], len(addresses))
    return Told(sent, unsent)


def _heard(told: str | None) -> dict[str, list[str]]:
    """By the receiver's place; nothing where it can't be read: twice is better than never."""
    try:
        if told is None or not storage.exists(told):
            return {}
        kept: dict[str, list[str]] = json.loads(storage.read_bytes(told))
        return kept
    except Exception as fault:
        _log.warning("told_not_read", reason=type(fault).__name__)
        return {}


def _keep(told: str, event: Event, heard: dict[str, list[str]], reached: Sequence[int], count: int) -> None:
    """Who heard of trouble, or did not want to. After a good end only those are kept who could not be told of it."""
    if event in ("failed", "late"):
        now = {str(i): [*dict.fromkeys([*heard.get(str(i), ()), event])] for i in reached}
        now = {**heard, **now}
    else:
        now = {i: events for i, events in heard.items() if int(i) < count and int(i) not in reached}
    try:
        if now and now != heard:
            storage.write_bytes(told, json.dumps(now).encode())
        elif not now and heard:
            storage.delete(told)
    except Exception as fault:
        _log.warning("told_not_kept", reason=type(fault).__name__)


# -- HTTP ---------------------------------------------------------------------------------------------------------


class _Stays(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like another: it would take the message to a place that nobody wrote down."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(url: str, body: dict[str, Any], deadline: float) -> str | None:
    """Why it could not be delivered, without the URL; None where it was."""
    opener = urllib.request.build_opener(_Stays)
    data = json.dumps(body, ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "bizllm"}
    why = "no time"
    for wait_s in (*WAITS_S, None):
        left = deadline - time.monotonic()
        if left <= 0:
            return why
        try:
            asked = urllib.request.Request(url, data, headers, method="POST")  # noqa: S310 - http or https, checked
            with opener.open(asked, timeout=min(TRY_S, left)):
                return None
        except urllib.error.HTTPError as fault:
            why = f"HTTP {fault.code}"
            fault.close()
            if fault.code not in _AGAIN:
                return why
        except urllib.error.URLError as fault:
            why = type(fault.reason).__name__ if isinstance(fault.reason, Exception) else "URLError"
        except Exception as fault:  # HTTP that is none, a cut connection; their texts may quote the URL
            why = type(fault).__name__
        if wait_s is not None:
            time.sleep(max(0.0, min(wait_s, deadline - time.monotonic())))
    return why
