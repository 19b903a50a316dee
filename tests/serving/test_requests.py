"""What a request asks for: read strictly, and what is not done here is refused by name."""

from __future__ import annotations

import json

import pytest

from swarm.serving.errors import ApiError, UnsupportedError
from swarm.serving.requests import CHAT_STOP, CHAT_TOKENS, COMPLETION_TOKENS, read


def completion(**fields):
    return read(json.dumps({"model": "gpt", "prompt": "to be"} | fields).encode(), is_chat=False)


def chat(**fields):
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": "gpt", "messages": messages} | fields
    return read(json.dumps(body).encode(), is_chat=True)


def test_what_is_left_out_is_as_openai_has_it() -> None:
    wish = completion()
    assert (wish.max_tokens, wish.temperature, wish.top_p, wish.seed) == (
        COMPLETION_TOKENS,
        1.0,
        1.0,
        None,
    )
    assert (wish.stops, wish.stream, wish.with_usage) == ((), False, False)
    assert chat().max_tokens == CHAT_TOKENS


def test_messages_become_a_prompt_that_ends_with_the_assistants_turn() -> None:
    wish = chat(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "hello "}]},
            {"role": "assistant", "content": "hi"},
            {"role": "user", "content": "and?"},
        ],
        stop="x",
        max_completion_tokens=5,
        max_tokens=9,
    )
    assert wish.prompt == "system: be brief\nuser: hello\nassistant: hi\nuser: and?\nassistant:"
    assert wish.stops == ("x", CHAT_STOP)
    assert wish.max_tokens == 5
    assert chat(max_completion_tokens=None, max_tokens=9).max_tokens == 9


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": 1}, "logprobs"),
        ({"echo": True}, "echo"),
        ({"suffix": "."}, "suffix"),
        ({"tools": [{}]}, "tools"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"audio": {}}, "audio"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
    ],
)
def test_what_would_change_the_text_and_is_not_done_is_refused(fields, param) -> None:
    with pytest.raises(UnsupportedError) as caught:
        completion(**fields)
    assert caught.value.to_json()["error"]["param"] == param


def test_fields_that_change_nothing_are_let_pass() -> None:
    assert completion(
        n=1, logprobs=None, user="me", presence_penalty=0.0, prompt=["to be"], tools=[]
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"seed": 2**63}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": "a" * 129}, "stop"),
        ({"stream": 1}, "stream"),
        ({"stream_options": []}, None),
        ({"stream_options": [1]}, "stream_options"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_its_field(fields, param) -> None:
    if param is None:
        assert completion(**fields)
        return
    with pytest.raises(ApiError) as caught:
        completion(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "messages", [None, [], [{}], [{"role": "robot", "content": "x"}], [{"role": "user"}], "hello"]
)
def test_messages_that_are_none_are_refused(messages) -> None:
    with pytest.raises(ApiError):
        chat(messages=messages)


HALF = "half of a pair: \ud800"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": HALF}, "prompt"),
        ({"prompt": [HALF]}, "prompt"),
        ({"stop": HALF}, "stop"),
        ({"stop": ["a", HALF]}, "stop"),
        ({"model": HALF}, "model"),
    ],
)
def test_a_text_that_cannot_be_written_is_refused(fields, param) -> None:
    with pytest.raises(ApiError, match="not UTF-8") as caught:
        completion(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize("content", [HALF, [{"type": "text", "text": HALF}]])
def test_a_message_that_cannot_be_written_is_refused(content) -> None:
    with pytest.raises(ApiError, match="not UTF-8") as caught:
        chat(messages=[{"role": "user", "content": content}])
    assert caught.value.param == "messages[0]"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(body) -> None:
    with pytest.raises(ApiError):
        read(body, is_chat=False)
