"""An endpoint as a model, over real HTTP: answers, and everything that goes wrong between."""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter
from email.utils import formatdate
from typing import Any

import pytest

from bizllm.errors import RunError, UserError
from bizllm.models import endpoint_writer
from bizllm.models.endpoint import Endpoint, parsed
from bizllm.models.endpoint_writer import EndpointWriter
from bizllm.models.load import NO_FOLDER, ModelLoader, check, resolve
from bizllm.models.writer import TooLong
from tests.openai_server import Asked, Say, Server, serving

SECRET = "Jane Doe of Elm Street"  # row text, which must be in no message


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_writer, "FIRST_WAIT_S", 0.01)


def writer(server: Server, **said: Any) -> EndpointWriter:
    given = {"patience_s": 3, "timeout_s": 5} | said
    return EndpointWriter.load(Endpoint(endpoint=server.address, model="small", **given))


def shout(prompt: str, _: Asked) -> str:
    return f" {prompt.upper()} "


def test_answers_come_in_the_order_of_the_prompts_and_equal_ones_are_asked_once() -> None:
    with serving(lambda prompt, _: Say(prompt.upper(), wait_s=0.1 + 0.01 * len(prompt))) as server:
        asked = ["three little words", "水壶漏水", "b", "b", "three little words"]
        one = writer(server, concurrency=2)
        made = one.generate(asked, 20)
        assert made.texts == ["THREE LITTLE WORDS", "水壶漏水", "B", "B", "THREE LITTLE WORDS"]
        assert made.input_tokens.tolist() == [3, 1, 1, 1, 3] and made.output_tokens.tolist() == [4, 2, 2, 2, 4]
        assert made.finished.all() and not made.failed
        assert sorted(server.prompts) == sorted(set(asked)) and server.most_at_once == 2
        assert one.usage == [5, 8]
        first = server.asked[0]
        assert (first["model"], first["temperature"], first["seed"], first["max_tokens"]) == ("small", 0.0, 0, 20)
        assert "response_format" not in first and server.keys == [None] * 3
        assert one.generate([], 20).texts == []


def test_a_drawn_answer_has_a_seed_of_its_prompt_and_the_given_one() -> None:
    with serving(shout) as server:
        one = writer(server)
        one.generate(["a", "b"], 9, temperature=0.7, seed=1)
        one.generate(["b", "a"], 9, temperature=0.7, seed=1)
        one.generate(["a"], 9, temperature=0.7, seed=2)
        seeds = Counter((asked["messages"][0]["content"], asked["seed"]) for asked in server.asked)
        assert sorted(seeds.values()) == [1, 2, 2] and len({seed for _, seed in seeds}) == 3
        assert all(asked["temperature"] == 0.7 and 0 <= asked["seed"] < 1 << 31 for asked in server.asked)


def test_a_schema_goes_with_the_request_where_the_endpoint_is_guided() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    with serving(lambda *_: "{}") as server:
        writer(server).generate(["x"], 9, schema=schema)
        writer(server, guided=False).generate(["x"], 9, schema=schema)
        said = server.asked[0]["response_format"]
        assert said["type"] == "json_schema" and said["json_schema"]["schema"] == schema
        assert "response_format" not in server.asked[1]


def test_the_key_comes_from_its_variable_and_from_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-asked-for")
    monkeypatch.setenv("OPENAI_ORG_ID", "not-asked-for")
    with serving(shout) as server:
        writer(server).generate(["a"], 9)
        with pytest.raises(UserError, match=r"LLM_KEY.*no such environment variable"):
            writer(server, key_env="LLM_KEY")
        monkeypatch.setenv("LLM_KEY", "sk-123")
        keyed = writer(server, key_env="LLM_KEY")
        keyed.generate(["a"], 9)
        assert server.keys == [None, "Bearer sk-123"] and "sk-123" not in repr(keyed) + keyed.endpoint.uri


def test_busy_and_broken_replies_are_asked_again() -> None:
    faults = {
        "busy": Say(status=429, headers={"Retry-After": "0.3"}),
        "later": Say(status=503, headers={"Retry-After": formatdate(time.time() + 1, usegmt=True)}),
        "error": Say(status=500, body="<html>oops</html>", headers={"Content-Type": "text/html"}),
        "half": Say(body='{"id": "x", "choices": [{"ind'),
        "dropped": Say("never", drop=True),
        "no choices": Say(body={"id": "x", "object": "chat.completion", "choices": []}),
        "no json": Say(body="plain words", headers={"Content-Type": "text/plain"}),
        "slow": Say("never", wait_s=0.8),
    }
    seen: Counter[str] = Counter()

    def answer(prompt: str, _: Asked) -> Say | str:
        seen[prompt] += 1
        return faults[prompt] if seen[prompt] == 1 and prompt in faults else f"{prompt}!"

    with serving(answer) as server:
        began = time.monotonic()
        made = writer(server, timeout_s=0.5, patience_s=10).generate([*faults, "fine"], 9)
        assert made.texts == [f"{prompt}!" for prompt in [*faults, "fine"]] and not made.failed
        assert time.monotonic() - began >= 0.3, "Retry-After is kept"
        assert all(seen[prompt] == 2 for prompt in faults) and seen["fine"] == 1


def test_while_the_endpoint_asks_to_wait_nobody_asks() -> None:
    at: list[float] = []

    def answer(prompt: str, _: Asked) -> Say | str:
        at.append(time.monotonic())
        return Say(status=429, headers={"Retry-After": "0.5"}) if len(at) == 1 else "ok"

    with serving(answer) as server:
        writer(server, concurrency=1).generate(["a", "b", "c"], 9)
    assert len(at) == 4 and at[1] - at[0] >= 0.45 and at[3] - at[1] < 0.4


def test_a_limit_of_the_rate_is_waited_for_as_long_as_some_pass() -> None:
    """One in 0.1 s: the last of twelve waits for longer than the patience of half a second."""
    free_at = [0.0]

    def answer(prompt: str, _: Asked) -> Say | str:
        if time.monotonic() < free_at[0]:
            return Say(status=429)
        free_at[0] = time.monotonic() + 0.1
        return "ok"

    with serving(answer) as server:
        began = time.monotonic()
        made = writer(server, patience_s=0.6, concurrency=12).generate([f"p{i}" for i in range(12)], 9)
        assert made.texts == ["ok"] * 12 and not made.failed and time.monotonic() - began > 1.0


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (Say(status=400, body={"error": {"code": "context_length_exceeded", "message": SECRET}}), "too_long"),
        (Say(status=400, body={"error": {"message": f"maximum context length is 512 tokens. {SECRET}"}}), "too_long"),
        (Say(status=413), "too_long"),
        (Say(status=400, body={"error": {"code": "content_filter", "message": SECRET}}), "refused"),
        (Say("", finish="content_filter"), "refused"),
        (
            Say(
                body={
                    "id": "x",
                    "object": "chat.completion",
                    "created": 0,
                    "model": "m",
                    "choices": [
                        {
                            "index": 0,
                            "finish_reason": "stop",
                            "message": {"role": "assistant", "content": None, "refusal": SECRET},
                        }
                    ],
                }
            ),
            "refused",
        ),
        (Say(status=422, body={"error": {"message": SECRET}}), "not_accepted"),
        (Say(status=500, body={"error": {"message": SECRET}}), "failed"),
        (Say(body=f'{{"id": "{SECRET}", "choi'), "failed"),
    ],
)
def test_a_prompt_that_gets_no_answer_is_told_and_the_others_are_answered(said: Say, code: str) -> None:
    with serving(lambda prompt, _: said if SECRET in prompt else "fine") as server:
        made = writer(server).generate(["a", SECRET, "b", SECRET], 9)
    assert made.texts == ["fine", "", "fine", ""] and set(made.failed) == {1, 3}
    assert made.failed[1][0] == code and made.failed[1] == made.failed[3] and SECRET not in str(made.failed)
    assert made.input_tokens[1] == made.output_tokens[1] == 0 and not made.finished[1]


def test_an_answer_may_be_empty_or_cut_and_says_so() -> None:
    with serving(
        lambda prompt, _: Say(" ") if prompt == "a" else Say("half a", finish="length", usage=False)
    ) as server:
        made = writer(server).generate(["a", "b"], 9)
    assert made.texts == ["", "half a"] and made.finished.tolist() == [True, False] and not made.failed
    assert made.input_tokens[1] > 0 and made.output_tokens[1] == 2, "counted here where the endpoint tells no usage"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (Say(status=401, body={"error": {"message": SECRET}}), "refuses requests without a key"),
        (Say(status=404), "knows no such model"),
        (Say(status=429, body={"error": {"code": "insufficient_quota"}}), "quota is used up"),
        (Say(status=307, headers={"Location": "http://127.0.0.1:9/v1"}), "sends elsewhere"),
        (Say(status=503, body={"error": {"message": SECRET}}), r"gave no answer for 0 s|gave no answer for 1 s"),
        (Say(status=429, headers={"Retry-After": "3600"}), "asks to wait 3600 s"),
        (Say(status=500), "gave no answer in 4 tries .HTTP 500"),
    ],
)
def test_an_endpoint_that_answers_nobody_ends_the_run_in_bounded_time(said: Say, told: str) -> None:
    with serving(lambda *_: said) as server:
        began = time.monotonic()
        one = writer(server, patience_s=1)
        with pytest.raises(RunError, match=told) as fault:
            one.generate([SECRET, "a", "b"], 9)
        assert time.monotonic() - began < 4
        assert SECRET not in str(fault.value) and server.address in str(fault.value)
        before = len(server.asked)
        with pytest.raises(RunError, match="still down"):
            one.generate(["a", "b"], 9)
        assert len(server.asked) == before + 1, "a worker's next unit asks once, and does not wait again"
        server.answer = shout
        assert one.generate(["a"], 9).texts == ["A"]


def test_nobody_is_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    one = EndpointWriter.load(Endpoint(endpoint=address, model="m", patience_s=0.5))
    with pytest.raises(RunError, match=r"gave no answer for .*no connection"):
        one.generate(["a"], 9)


def test_what_is_longer_than_the_window_is_not_sent() -> None:
    with serving(shout) as server:
        one = writer(server, max_tokens=100)
        assert one.max_input_tokens(40) == 60
        long = "水" * 60  # 3 bytes a character: a token each
        with pytest.raises(TooLong) as error:
            one.generate(["a", long], 40)
        assert error.value.positions == (1,) and not server.asked
        with pytest.raises(UserError, match="window has 100 tokens"):
            one.max_input_tokens(100)


def test_nothing_of_a_text_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_LOG", "debug")
    monkeypatch.setenv("BIZLLM_LOG", "debug")
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []

    def answer(prompt: str, _: Asked) -> Say | str:
        seen.append(prompt)
        return Say(status=500, body={"error": {"message": prompt}}) if len(seen) == 1 else prompt

    with serving(answer) as server:
        one = writer(server)
        caplog.set_level(logging.DEBUG)
        one.generate([SECRET], 9)
    assert SECRET not in caplog.text and len(seen) == 2


# -- its URI ------------------------------------------------------------------------------------------------------


def test_a_uri_holds_all_of_it_and_never_a_key() -> None:
    whole = Endpoint(
        endpoint="https://llm.internal:8000/v1/",
        model="Qwen/Qwen3-8B",
        revision="july & after",
        key_env="LLM_KEY",
        max_tokens=32_768,
        guided=False,
        concurrency=3,
        timeout_s=7.5,
        input_price=0.15,
    )
    assert parsed(whole.uri) == whole and whole.name == "openai:Qwen/Qwen3-8B@https://llm.internal:8000/v1"
    plain = parsed("openai:llama3:8b@http://localhost:11434/v1")
    assert (plain.model, plain.endpoint, plain.uri) == ("llama3:8b", "http://localhost:11434/v1", plain.name)


def test_what_decides_answers_is_in_the_hash_and_nothing_else() -> None:
    def hash_of(**said: Any) -> str:
        return Endpoint(**{"endpoint": "https://h/v1", "model": "m", **said}).content_hash

    assert hash_of() == hash_of(key_env="K", concurrency=2, timeout_s=1, patience_s=1, input_price=3)
    others = [{"model": "n"}, {"endpoint": "https://g/v1"}, {"revision": "2"}, {"max_tokens": 99}, {"guided": False}]
    assert len({hash_of(), *(hash_of(**said) for said in others)}) == 6


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("openai:gpt", "expected openai:MODEL@https://HOST/v1"),
        ("openai:@https://h/v1", "expected openai:"),
        ("openai:m@ftp://h", "expected openai:"),
        ("openai:m@https://u:pw@h/v1", "expected openai:"),
        ("openai:m@https://h/v1#max_tokens=0", "max_tokens: Input should be greater than 0"),
        ("openai:m@https://h/v1#api_key=sk-1", "api_key: Extra inputs"),
        ("https://llm.internal/v1", "put openai:MODEL@ before the address"),
        ("openal:m@https://h/v1", "did you mean 'openai'"),
    ],
)
def test_a_faulty_uri_says_what_was_expected(uri: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as fault:
        check(uri)
    assert "sk-1" not in str(fault.value) and "pw@" not in str(fault.value)


def test_an_endpoint_is_a_generator_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "openai:m@https://h/v1#revision=2026-10&key_env=LLM_KEY"
    with pytest.raises(UserError, match="only a `generator` takes"):
        resolve(uri, place="steps.s.model")
    with pytest.raises(UserError, match="only a `generator` takes"):
        ModelLoader().encoder(uri)
    with pytest.raises(UserError, match=r"steps\.s\.generator: 'LLM_KEY': no such environment variable"):
        resolve(uri, place="steps.s.generator", adapter=True)
    monkeypatch.setenv("LLM_KEY", "sk-9")
    found = resolve(uri, adapter=True)
    assert (found.uri, found.folder, found.kind) == ("openai:m@https://h/v1", NO_FOLDER, "openai")
    assert found.model_version.startswith("2026-10-") and "sk-9" not in repr(found)
    assert isinstance(ModelLoader(pinned={uri: found}).generator(uri), EndpointWriter)
