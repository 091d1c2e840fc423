"""Models that write, behind an OpenAI-compatible HTTP endpoint. The package `openai` lives here only.

A prompt that gets no answer is told in `Generations.failed`; only an endpoint that is down, or refuses everybody,
raises. Which of the two it is where a prompt fails again and again is decided by a short question of our own.
"""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import numpy as np

from bizllm import logs
from bizllm.errors import Fault, RunError, UserError
from bizllm.models import batches
from bizllm.models.endpoint import Endpoint
from bizllm.models.writer import Counts, Failure, Generations, TooLong, Writer, seed_of

_log = logs.get(__name__)

TRIES = 4  # of a prompt that the endpoint fails on while it answers others
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
_CONNECT_S = 10.0
_BYTES_PER_TOKEN = 3  # of UTF-8, to be on the safe side: English has about 4, Chinese 3 to 5
_AROUND = 16  # tokens of a chat template
_PROBE = "Reply with OK."
_BUSY = (408, 425, 429, 503)  # asked again as long as the patience lasts; other faults TRIES times
_TOO_LONG = re.compile(r"context.?(length|window|size)|maximum.{0,20}(context|tokens)|too (long|many tokens)", re.I)
_FILTERED = re.compile(r"content.?(filter|policy|management)", re.I)

REFUSED: Failure = ("refused", "the model, or a filter before it, refused to answer")
WINDOW: Failure = ("too_long", "the prompt is longer than the window of the endpoint's model")


@dataclass(frozen=True)
class _Reply:
    text: str
    read: int | None
    written: int | None
    finished: bool


class _Again(Exception):
    """A fault that may pass. busy: the endpoint's, not the prompt's. after_s: when it asks to be asked again."""

    def __init__(self, what: str, busy: bool, after_s: float = 0.0) -> None:
        super().__init__(what)
        self.busy, self.after_s = busy, after_s


@dataclass(eq=False)
class EndpointWriter(Writer):
    """A model that is asked through the package `openai`, several prompts at once.

    client: `openai.OpenAI`, without retries of its own. unkeyed: what a request says where there is no key. usage:
    tokens read and written so far, as the endpoint counts.
    """

    endpoint: Endpoint
    client: Any = field(repr=False)
    unkeyed: Mapping[str, Any] = field(repr=False)
    usage: list[int] = field(default_factory=lambda: [0, 0])
    _resume_at: float = 0.0  # before which nobody asks: it said so
    _answered_at: float = 0.0  # when anybody was answered last
    _down: bool = False

    @classmethod
    def load(cls, endpoint: Endpoint) -> EndpointWriter:
        """Ready to ask; nothing is asked yet. Raises UserError where the variable of its key is not set."""
        import openai

        key = key_of(endpoint)
        unkeyed = {} if key else {"extra_headers": {"Authorization": openai.Omit()}}
        for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):  # they would log requests, texts included
            logging.getLogger(name).setLevel(logging.ERROR)
        client = openai.OpenAI(
            base_url=endpoint.endpoint,
            api_key=key or "none",
            organization="",
            project="",
            max_retries=0,
            http_client=openai.DefaultHttpxClient(
                timeout=openai.Timeout(endpoint.timeout_s, connect=min(_CONNECT_S, endpoint.timeout_s)),
                follow_redirects=False,  # texts go to the address that the job names, and nowhere else
            ),
        )
        return cls(endpoint, client, unkeyed)

    def max_input_tokens(self, max_new_tokens: int) -> int:
        room = self.endpoint.max_tokens - max_new_tokens
        if room < 1:
            window = f"the endpoint's window has {self.endpoint.max_tokens} tokens"
            hint = "lower it, or set the model's `max_tokens`"
            raise UserError(Fault("max_new_tokens", max_new_tokens, window, hint))
        return room

    def count(self, prompts: Sequence[str], *, chat: bool = True) -> Counts:
        """Rather too many than too few: the tokenizer is not known here."""
        sizes = [len(prompt.encode("utf-8", "replace")) for prompt in prompts]
        return np.array([-(-size // _BYTES_PER_TOKEN) + _AROUND for size in sizes], np.int64)

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        chat: bool = True,
        schema: Mapping[str, Any] | None = None,
    ) -> Generations:
        """As `Writer.generate`, always as a chat. Raises RunError where it is down for longer than its patience."""
        limit = self.max_input_tokens(max_new_tokens)
        unique, places = batches.distinct(prompts)
        counted = self.count(unique)
        if len(unique) and counted.max() > limit:
            raise TooLong(np.flatnonzero(counted[places] > limit).tolist(), int(counted.max()), limit)
        if self._down and not self._lives():
            raise RunError(f"{self.endpoint.name}: is still down")
        self._down = False
        stop = threading.Event()
        said: dict[str, Any] = {"max_tokens": max_new_tokens, "temperature": temperature}
        if schema is not None and self.endpoint.guided:
            answer = {"name": "answer", "strict": True, "schema": dict(schema)}
            said["response_format"] = {"type": "json_schema", "json_schema": answer}

        def ask(prompt: str) -> _Reply | Failure:
            own = seed_of(prompt, seed) % (1 << 31) if temperature > 0 else 0
            try:
                return self._answered(prompt, {**said, "seed": own}, stop)
            except RunError:
                stop.set()
                raise

        try:
            with ThreadPoolExecutor(self.endpoint.concurrency, thread_name_prefix="endpoint") as pool:
                replies = list(pool.map(ask, unique))
        except RunError:
            self._down = True
            raise
        return self._told(replies, counted, places)

    def _told(self, replies: Sequence[_Reply | Failure], counted: Counts, places: Any) -> Generations:
        """counted: what each prompt would be by our count, for an endpoint that tells no usage."""
        read, written = np.zeros(len(replies), np.int64), np.zeros(len(replies), np.int64)
        for i, reply in enumerate(replies):
            if isinstance(reply, _Reply):
                read[i] = counted[i] if reply.read is None else reply.read
                written[i] = self.count([reply.text])[0] - _AROUND if reply.written is None else reply.written
        self.usage = [self.usage[0] + int(read.sum()), self.usage[1] + int(written.sum())]
        rows = [replies[place] for place in places]
        return Generations(
            [row.text if isinstance(row, _Reply) else "" for row in rows],
            read[places],
            written[places],
            np.array([isinstance(row, _Reply) and row.finished for row in rows], bool),
            {i: row for i, row in enumerate(rows) if not isinstance(row, _Reply)},
        )

    # -- one prompt -----------------------------------------------------------------------------------------------

    def _answered(self, prompt: str, said: Mapping[str, Any], stop: threading.Event) -> _Reply | Failure:
        """Ask, and again where that may help. Raises RunError where nobody is answered."""
        began, attempt, patience = time.monotonic(), 0, self.endpoint.patience_s
        while True:
            attempt += 1
            stop.wait(max(0.0, self._resume_at - time.monotonic()))
            if stop.is_set():
                return "failed", "the endpoint failed on others"  # never seen: another thread raises
            try:
                reply = self._once(prompt, said)
            except _Again as fault:
                longest = min(LONGEST_WAIT_S, patience / 4, FIRST_WAIT_S * 2 ** (attempt - 1))
                wait_s = max(fault.after_s, random.uniform(longest / 2, longest))
                if fault.after_s:
                    self._resume_at = max(self._resume_at, time.monotonic() + min(wait_s, patience))
                # Of a busy endpoint time counts from the last answer that anybody got: its rate lets all pass in time.
                since = max(began, self._answered_at) if fault.busy else began
                over = time.monotonic() - since + wait_s > patience
                if over or (attempt >= TRIES and not fault.busy):
                    if self._lives():
                        return "failed", f"the endpoint fails on this prompt, and answers others ({fault})"
                    told = f"for {time.monotonic() - since:.0f} s" if over else f"in {attempt} tries"
                    asks = f"; it asks to wait {fault.after_s:.0f} s" if fault.after_s > patience else ""
                    raise RunError(f"{self.endpoint.name}: gave no answer {told} ({fault}){asks}") from None
                _log.warning("endpoint_retried", endpoint=self.endpoint.name, attempt=attempt, error=str(fault))
                stop.wait(wait_s)
            else:
                self._answered_at = time.monotonic()
                return reply

    def _once(self, prompt: str, said: Mapping[str, Any]) -> _Reply | Failure:
        """One request. Raises _Again, and RunError for what no prompt can mend. Their messages hold nothing of the
        reply, which may quote the prompt."""
        import openai

        try:
            reply = self.client.chat.completions.create(
                model=self.endpoint.model, messages=[{"role": "user", "content": prompt}], **said, **self.unkeyed
            )
        except openai.APIStatusError as fault:
            return self._refusal(fault.status_code, fault.response.headers, fault.body, "response_format" in said)
        except openai.APITimeoutError:
            raise _Again(f"no reply within {self.endpoint.timeout_s:g} s", busy=False) from None
        except openai.APIConnectionError as fault:
            cause = type(fault.__cause__).__name__
            raise _Again(f"no connection: {cause}", busy=cause == "ConnectError") from None
        except (openai.OpenAIError, ValueError) as fault:  # half a reply
            raise _Again(f"a reply that can't be read: {type(fault).__name__}", busy=False) from None
        return _read(reply)

    def _refusal(self, status: int, headers: Mapping[str, str], body: Any, guided: bool) -> Failure:
        """What a status that is no success means for the prompt. Raises _Again, RunError."""
        told = body if isinstance(body, dict) else {}
        code = f"{told.get('code')} {told.get('type')}"
        words = f"{code} {told.get('message')}"
        name = self.endpoint.name
        if status < 400:
            raise RunError(f"{name}: sends elsewhere (HTTP {status}); name the address that it sends to")
        if "insufficient_quota" in code:
            raise RunError(f"{name}: its quota is used up (HTTP {status})")
        if status in _BUSY or status >= 500:
            raise _Again(f"HTTP {status}", status in _BUSY, _after_s(headers))
        if status == 413 or _TOO_LONG.search(words):
            return WINDOW
        if _FILTERED.search(words):
            return REFUSED
        if status in (401, 403):
            key = f"the key in ${self.endpoint.key_env}" if self.endpoint.key_env else "requests without a key"
            raise RunError(f"{name}: refuses {key} (HTTP {status})")
        if status in (404, 405):
            raise RunError(f"{name}: knows no such model or address (HTTP {status})")
        hint = "; if it does so always, set the model's `guided: false`" if guided else ""
        return "not_accepted", f"the endpoint did not accept the request (HTTP {status}{hint})"

    def _lives(self) -> bool:
        """Whether it answers anybody now."""
        with suppress(_Again, RunError):
            said = {"max_tokens": 4, "temperature": 0.0, "seed": 0}
            return isinstance(self._once(_PROBE, said), _Reply)
        return False


def _read(reply: Any) -> _Reply | Failure:
    """Of a reply with a status of success. Raises _Again where it is not what the protocol says: nobody checked it."""
    from openai.types.chat import ChatCompletion, ChatCompletionMessage

    choices = reply.choices if isinstance(reply, ChatCompletion) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    if choice is None or not isinstance(message, ChatCompletionMessage):
        raise _Again("a reply without an answer", busy=False)
    if choice.finish_reason == "content_filter" or message.refusal:
        return REFUSED
    if not isinstance(message.content, str | None):
        raise _Again("a reply without an answer", busy=False)
    counts = [getattr(reply.usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    read, written = (count if isinstance(count, int) else None for count in counts)
    return _Reply((message.content or "").strip(), read, written, choice.finish_reason != "length")


def key_of(endpoint: Endpoint, place: str = "key_env") -> str | None:
    """The API key, from its variable. Raises UserError where that is not set."""
    if endpoint.key_env is None:
        return None
    key = os.environ.get(endpoint.key_env, "").strip()
    if not key:
        raise UserError(Fault(place, endpoint.key_env, "no such environment variable, or an empty one", "set it"))
    return key


def _after_s(headers: Mapping[str, str]) -> float:
    """Seconds of `Retry-After`: a number or a date; 0 where there is none that can be read."""
    said = headers.get("retry-after", "")
    with suppress(ValueError, TypeError):
        return max(0.0, float(said))
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds())
    return 0.0
