"""Where `notify:` says that messages go: checked when the file is read, while no value of a variable is looked at."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from bizllm.errors import Fault, UserError
from bizllm.jobs.yaml_places import Document, Keys
from bizllm.receivers import VARIABLE, Receiver


@dataclass(frozen=True)
class Address:
    """A receiver, and where it is. url: a secret."""

    receiver: Receiver
    url: str = field(repr=False)


def held_back(document: Document) -> list[Keys]:
    """The places of webhooks' URLs, whose variables are not put in: only who sends needs them. A URL that is written
    down is a fault, and is never shown."""
    listed = document.values.get("notify")
    entries: list[tuple[Keys, Any]] = [(("notify",), listed)]
    if isinstance(listed, list):
        entries = [(("notify", i), one) for i, one in enumerate(listed)]
    places: list[Keys] = []
    for at, one in entries:
        url = one.get("url") if isinstance(one, dict) else one
        if isinstance(url, str) and not (isinstance(one, dict) and VARIABLE.fullmatch(url)):
            expected = "a webhook's URL is a secret; expected a variable alone: - {url: ${SLACK_WEBHOOK}}"
            document.fault((*at, "url") if isinstance(one, dict) else at, None, expected)
            document.values["notify"] = []  # so that no other fault shows it
        elif isinstance(url, str):
            places.append((*at, "url"))
    return places


def addresses(
    receivers: Sequence[Receiver], document: Document, environment: Mapping[str, str] = os.environ
) -> list[Address]:
    """The receivers with their URLs. Raises UserError where a variable holds none; its value is not shown."""
    found, faults = [], []
    for i, receiver in enumerate(receivers):
        url = environment.get(receiver.variable, "").strip()
        if expected := _wrong(url, receiver.variable):
            faults.append(Fault(document.place("notify", i, "url"), receiver.url, expected))
        found.append(Address(receiver, url))
    if faults:
        raise UserError(*faults)
    return found


def _wrong(url: str, name: str) -> str:
    if not url:
        return f"the environment variable {name} is not set; it should hold the webhook's URL"
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    clean = url.isascii() and url.isprintable() and " " not in url
    return "" if right and clean else f"the environment variable {name} holds no http:// or https:// URL"
