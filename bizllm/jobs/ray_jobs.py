"""Ray's Jobs API as a client sees it: address, token, time limits, a job's log, and what refusals mean in one line."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bizllm.errors import Fault, RunError, UserError

ANSWER_S = 120.0  # for one answer of the cluster, the upload of the folder's package included
HEARTBEAT_S = 20.0  # a log's connection that has not answered for so long is broken
_ON_THE_WAY = ("429", "502", "503", "504")  # what proxies say when they can't reach the head
_SDK = "dashboard.modules.dashboard_sdk"


def checked_address(given: str | None) -> str:
    """`given`, else RAY_API_SERVER_ADDRESS, without a slash at the end. Raises UserError where it is no address."""
    address = given or os.environ.get("RAY_API_SERVER_ADDRESS")
    place = "--address" if given or not address else "RAY_API_SERVER_ADDRESS"
    parts = urlsplit(address or "")
    try:
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number
        right = False
    if not right or parts.username or parts.query or parts.fragment:
        shown = address if "@" not in parts.netloc else None
        hint = "ray:// and auto are for `bizllm run`" if parts.scheme == "ray" or address == "auto" else ""
        raise UserError(Fault(place, shown, "expected the head's dashboard, http://HEAD:8265", hint))
    assert address is not None
    return address.rstrip("/")


def _token() -> str | None:
    """The token for the cluster, from where Ray itself looks: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token.

    None where there is none, or where RAY_AUTH_MODE is `disabled`. Raises UserError where one is asked for and missing.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    if mode == "disabled":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named or "~/.ray/auth_token").expanduser()
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as fault:
        if named:
            said = getattr(fault, "strerror", None) or "is not text"
            raise UserError(Fault("RAY_AUTH_TOKEN_PATH", named, f"can't read the token: {said}")) from None
        token = ""
    if named and not token:
        raise UserError(Fault("RAY_AUTH_TOKEN_PATH", named, "is empty; expected the cluster's token"))
    if mode == "token" and not token:
        raise UserError(
            Fault("RAY_AUTH_MODE", "token", "there is no token", "set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH")
        )
    return token or None


def connect(url: str) -> Any:
    """A JobSubmissionClient that the cluster let in. Raises UserError where nobody answers or the token is wrong."""
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):
        """Ray's client, which by itself would wait for ever for a machine that is gone."""

        def _do_request(self, *args: Any, **options: Any) -> Any:
            return super()._do_request(*args, **{"timeout": (10.0, ANSWER_S), **options})

        async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
            """The log from its start, by pieces. Raises where the connection breaks, and where it falls silent, of
            which Ray's own method hears nothing."""
            import aiohttp

            place = f"{self._address}/api/jobs/{job_id}/logs/tail"
            async with (
                aiohttp.ClientSession(cookies=self._cookies, headers=self._headers) as session,
                session.ws_connect(place, ssl=self._ssl_context, heartbeat=HEARTBEAT_S, max_msg_size=0) as log,
            ):
                async for piece in log:
                    if piece.type is not aiohttp.WSMsgType.TEXT:
                        raise ConnectionError(f"the log came as {piece.type.name}")
                    yield piece.data
                if log.close_code != aiohttp.WSCloseCode.OK:
                    raise ConnectionError(f"the log's connection was closed with {log.close_code}")

    token = _token()
    with refusals(url, "connect"), _without("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        return Client(url, headers={"Authorization": f"Bearer {token}"} if token else None)


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Without these variables, which Ray's client would take before the address that it is given."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


@contextmanager
def refusals(url: str, action: str) -> Iterator[None]:
    """One line for what Ray's client raises: UserError where nobody answers or the token is wrong, else RunError."""
    from ray.exceptions import AuthenticationError
    from requests import RequestException

    try:
        yield
    except AuthenticationError as fault:
        missing = "Authentication required" in str(fault)
        said = "the cluster asks for a token and got none" if missing else "the cluster refuses this token"
        hint = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        raise UserError(Fault("--address", url, said, hint)) from None
    except (ConnectionError, RequestException) as fault:
        hint = "is it the address of the head's dashboard, and can this machine reach it?"
        raise UserError(Fault("--address", url, f"no Ray cluster answers there ({cause(fault)})", hint)) from None
    except (RuntimeError, ValueError, KeyError, TypeError) as fault:
        if action == "connect":
            raise UserError(Fault("--address", url, f"no Ray dashboard answers there: {first_line(fault)}")) from None
        raise RunError(f"{url}: can't {action}: {first_line(fault)}") from fault


class Unanswered(Exception):
    """Nobody answered this time, or someone on the way who can't; the next time may be better."""


def job_info(client: Any, name: str) -> Any | None:
    """What the cluster knows of a submission; None where it knows no such. Raises Unanswered, RunError."""
    from ray.exceptions import AuthenticationError
    from requests import RequestException

    try:
        found = client.get_job_info(name)
    except AuthenticationError:
        raise RunError(f"{client.get_address()} no longer takes the token; {name} may go on") from None
    except (ConnectionError, RequestException) as fault:
        raise Unanswered(cause(fault)) from fault
    except RuntimeError as fault:
        status = re.search(r"status code (\d{3})", str(fault))
        if status is None or status[1] not in ("404", *_ON_THE_WAY):
            raise RunError(f"{name}: {first_line(fault)}") from fault
        if status[1] != "404":
            raise Unanswered(f"HTTP {status[1]}") from fault
        return None
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Without Ray's lines about each step of an upload."""
    loggers = [logging.getLogger(f"ray.{name}") for name in ("_private.runtime_env.packaging", _SDK)]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def cause(fault: BaseException) -> str:
    """Why nobody answered, in two or three words."""
    text = f"{fault!r} {fault.__context__!r}"
    for mark, reason in (
        ("Name or service not known", "no such host"),
        ("NameResolution", "no such host"),
        ("refused", "connection refused"),
        ("unreachable", "unreachable"),
        ("imed out", "timed out"),
        ("certificate", "its certificate is not trusted"),
        ("JSON", "not a Ray dashboard"),
    ):
        if mark in text:
            return reason
    return type(fault).__name__


def first_line(said: object, limit: int = 300) -> str:
    """What fits into a message of one line."""
    text = str(said).strip().partition("\n")[0]
    return text if len(text) <= limit else text[: limit - 1] + "…"
