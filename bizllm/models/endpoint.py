"""A model behind an OpenAI-compatible HTTP API: what a job says of it, and the URI that stands for that.

`openai:MODEL@URL`, such as `openai:qwen3-8b@https://llm.internal/v1`; settings other than the defaults follow behind
`#`, as in a query. What an endpoint runs can't be pinned: the fingerprint knows its address, the model's name, and what
the user says of the revision.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError
from pydantic import field_validator as checked

SCHEME = "openai"
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*", re.ASCII)
EXPECTED = "expected openai:MODEL@https://HOST/v1"
_URI = re.compile(rf"{SCHEME}:(?P<model>[^\s#]+)@(?P<endpoint>https?://[^\s#@]+)(?:#(?P<rest>.*))?", re.ASCII)
# What decides an answer; the rest decides only how and when it is asked for, and what it costs.
_DECIDES = {"endpoint", "model", "revision", "max_tokens", "guided"}


class Endpoint(BaseModel):
    """An entry of `models` that names an OpenAI-compatible HTTP endpoint; a `generator` of steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str = Field(description="Its address, up to what `/chat/completions` is added to: https://HOST/v1.")
    model: str = Field(min_length=1, description="The model's name there.")
    revision: str | None = Field(
        default=None,
        description="What you know of the model's version there, in your words. What an endpoint runs can't be seen "
        "from outside: change this when it changes, and the night is rebuilt.",
    )
    key_env: str | None = Field(
        default=None, description="The environment variable that holds the API key; without one none is sent."
    )
    max_tokens: PositiveInt = Field(default=8_192, description="The model's window: prompt and answer together.")
    guided: bool = Field(
        default=True,
        description="Whether it can hold an answer to a JSON Schema (`response_format`); false where it refuses that.",
    )
    concurrency: PositiveInt = Field(default=8, description="Requests at once, of each worker of a step.")
    timeout_s: PositiveFloat = Field(default=120, description="Seconds that one request may take.")
    patience_s: PositiveFloat = Field(
        default=300, description="Seconds for which an endpoint that is down or busy is asked again."
    )
    input_price: NonNegativeFloat | None = Field(
        default=None, description="Price of a million tokens that it reads, for the cost in `runs`."
    )
    output_price: NonNegativeFloat | None = Field(default=None, description="Price of a million tokens that it writes.")

    @checked("endpoint")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s#?]", url):
            raise ValueError("expected an address such as https://llm.internal/v1")
        if "@" in parts.netloc:
            raise ValueError("holds a login; expected an address alone, and the key in the variable of `key_env`")
        return url.rstrip("/").removesuffix("/chat/completions")

    @checked("model")
    @classmethod
    def _name(cls, name: str) -> str:
        if re.search(r"[\s#]", name):
            raise ValueError("expected the name of a model, without blanks and #")
        return name

    @checked("key_env")
    @classmethod
    def _variable(cls, name: str | None) -> str | None:
        if name is not None and not VARIABLE.fullmatch(name):
            raise ValueError("expected the name of an environment variable, such as LLM_KEY; never the key")
        return name

    @property
    def uri(self) -> str:
        """What stands for it in a step's settings: all of it."""
        said = self.model_dump(exclude={"endpoint", "model"}, exclude_defaults=True)
        return self.name + (f"#{urlencode(said)}" if said else "")

    @property
    def name(self) -> str:
        """What published rows say: `openai:MODEL@URL`."""
        return f"{SCHEME}:{self.model}@{self.endpoint}"

    @property
    def content_hash(self) -> str:
        """Of what decides its answers, as far as that can be known from here."""
        said = self.model_dump(mode="json", include=_DECIDES)
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    @property
    def priced(self) -> bool:
        """Whether its tokens have a price."""
        return self.input_price is not None or self.output_price is not None

    def cost(self, read: int, written: int) -> float:
        """Of so many tokens, in the currency of its prices."""
        return (read * (self.input_price or 0.0) + written * (self.output_price or 0.0)) / 1e6


def is_endpoint(uri: str) -> bool:
    """Whether a model's URI names an endpoint."""
    return uri.startswith(f"{SCHEME}:")


def computed_here(uris: Iterable[str]) -> bool:
    """Whether any of these models is computed by our own workers, and not behind an endpoint."""
    return any(not is_endpoint(uri) for uri in uris)


def parsed(uri: str) -> Endpoint:
    """The endpoint that a URI stands for. Raises ValueError, which says what was expected and quotes nothing."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise ValueError(EXPECTED)
    rest = dict(parse_qsl(match["rest"] or "", keep_blank_values=True))
    if {"endpoint", "model"} & rest.keys():
        raise ValueError(EXPECTED)
    try:
        return Endpoint.model_validate({"endpoint": match["endpoint"], "model": match["model"], **rest})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}") from None
