"""What a request asks for, read strictly. No I/O.

What would change the text and is not done here is refused by name; fields that change nothing are let pass.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from swarm.control.fields import is_unicode
from swarm.serving.errors import ApiError, UnsupportedError
from swarm.training.completion import MAX_TOKENS

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_BODY_BYTES: Final = 2**20
"""Of a request, and so of a prompt."""
MAX_STOPS: Final = 4
MAX_STOP_CHARACTERS: Final = 128
MAX_MESSAGES: Final = 1_024
MAX_SEED: Final = 2**63 - 1
MAX_TEMPERATURE: Final = 2.0
COMPLETION_TOKENS: Final = 16
"""Of a completion if nothing is said, as OpenAI has it."""
CHAT_TOKENS: Final = 256
ROLES: Final = ("system", "developer", "user", "assistant")
CHAT_STOP: Final = "\nuser:"
"""A chat's answer ends where the model begins to speak for the other side."""

_ONLY: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
}
"""Fields that change the text, and the values of them that change nothing."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One request.

    Attributes:
        model: As it was named.
        prompt: What the model goes on with.
        max_tokens: Of the answer.
        temperature: 0 takes the likeliest token each time.
        top_p: Only the likeliest tokens that have so much of the probability; at least one.
        seed: None where the request leaves it open.
        stops: Texts before which it ends.
        truncate: Read only so many last tokens of the prompt; 0: as many as fit; None: all or refuse.
        stream: Tell the text as it is made.
        with_usage: Tell the counts at a stream's end.
        is_chat: Whether messages were asked about.
    """

    model: str
    prompt: str
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    stops: tuple[str, ...]
    truncate: int | None
    stream: bool
    with_usage: bool
    is_chat: bool


def read(body: bytes, *, is_chat: bool) -> Wish:
    """Read a request's body.

    Raises:
        ApiError: It cannot be read, or asks for what is not done here.
    """
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        message = f"the request is not JSON: {str(error)[:200]}"
        raise ApiError(message) from error
    if not isinstance(values, dict):
        message = "the request is not a JSON object"
        raise ApiError(message)
    for name, allowed in _ONLY.items():
        if (value := values.get(name)) is not None and value not in allowed:
            message = f"{name}: only {json.dumps(allowed[0]) if allowed else 'null'} is done here"
            raise UnsupportedError(message, name)
    options = values.get("stream_options") or {}
    if not isinstance(options, dict):
        message = "stream_options: not an object"
        raise ApiError(message, "stream_options")
    stops = _stops(values)
    is_newer = values.get("max_completion_tokens") is not None
    limit = "max_completion_tokens" if is_newer else "max_tokens"
    return Wish(
        model=_text(values, "model"),
        prompt=template(_messages(values)) if is_chat else _prompt(values),
        max_tokens=_integer(
            values, limit, 1, MAX_TOKENS, CHAT_TOKENS if is_chat else COMPLETION_TOKENS
        ),
        temperature=_number(values, "temperature", MAX_TEMPERATURE, 1.0),
        top_p=_number(values, "top_p", 1.0, 1.0),
        seed=_optional(values, "seed", -MAX_SEED - 1, MAX_SEED),
        stops=(*stops, CHAT_STOP) if is_chat else stops,
        truncate=_truncate(values),
        stream=_flag(values, "stream"),
        with_usage=_flag(options, "include_usage"),
        is_chat=is_chat,
    )


def template(messages: list[tuple[str, str]]) -> str:
    """Messages as a prompt: each after the name of who says it, and then it is the assistant's turn.

    The models that a swarm trains come without a template of their own.
    """
    said = "".join(f"{role}: {text.strip()}\n" for role, text in messages)
    return f"{said}assistant:"


def _messages(values: dict[str, Any]) -> list[tuple[str, str]]:
    given = values.get("messages")
    if not isinstance(given, list) or not 0 < len(given) <= MAX_MESSAGES:
        message = f"messages: not a list of 1 to {MAX_MESSAGES:,}"
        raise ApiError(message, "messages")
    return [_message(one, f"messages[{at}]") for at, one in enumerate(given)]


def _message(value: Any, where: str) -> tuple[str, str]:  # noqa: ANN401 - JSON gives anything
    if not isinstance(value, dict) or value.get("role") not in ROLES:
        message = f"{where}.role: none of {', '.join(ROLES)}"
        raise ApiError(message, where)
    content = value.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text":
            message = f"{where}.content: only text is read here"
            raise UnsupportedError(message, where)
        if not isinstance(part.get("text"), str):
            message = f"{where}.content: not a text"
            raise ApiError(message, where)
        texts.append(_unicode(part["text"], where))
    role = "system" if value["role"] == "developer" else value["role"]
    return role, "".join(texts)


def _prompt(values: dict[str, Any]) -> str:
    given = values.get("prompt", "")
    if isinstance(given, list) and len(given) == 1:
        given = given[0]
    if not isinstance(given, str):
        message = "prompt: one text is done here, not several and not tokens"
        raise UnsupportedError(message, "prompt")
    return _unicode(given, "prompt")


def _stops(values: dict[str, Any]) -> tuple[str, ...]:
    given = values.get("stop")
    found = [] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(found, list) or len(found) > MAX_STOPS:
        message = f"stop: neither a text nor a list of at most {MAX_STOPS}"
        raise ApiError(message, "stop")
    for one in found:
        if not isinstance(one, str) or not 0 < len(one) <= MAX_STOP_CHARACTERS:
            message = f"stop: not a text of 1 to {MAX_STOP_CHARACTERS} characters"
            raise ApiError(message, "stop")
        _unicode(one, "stop")
    return tuple(found)


def _truncate(values: dict[str, Any]) -> int | None:
    """VLLM's `truncate_prompt_tokens`, of which -1 is as many as fit."""
    found = _optional(values, "truncate_prompt_tokens", -1, 2**31)
    return found if found is None else max(0, found)


def _text(values: dict[str, Any], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 256:
        message = f"{name}: missing, or not a text of 1 to 256 characters"
        raise ApiError(message, name)
    return _unicode(value, name)


def _unicode(text: str, where: str) -> str:
    """The text, which JSON can spell so that nobody can write it: half of a surrogate pair, alone."""
    if not is_unicode(text):
        message = f"{where}: not UTF-8"
        raise ApiError(message, where)
    return text


def _integer(values: dict[str, Any], name: str, low: int, high: int, default: int) -> int:
    found = _optional(values, name, low, high)
    return default if found is None else found


def _optional(values: dict[str, Any], name: str, low: int, high: int) -> int | None:
    value = values.get(name)
    if value is not None and (type(value) is not int or not low <= value <= high):
        message = f"{name}: not a whole number from {low:,} to {high:,}"
        raise ApiError(message, name)
    return value


def _number(values: dict[str, Any], name: str, high: float, default: float) -> float:
    value = values.get(name)
    if value is None:
        return default
    if type(value) not in (int, float) or not 0 <= value <= high:
        message = f"{name}: not a number from 0 to {high:g}"
        raise ApiError(message, name)
    return float(value)


def _flag(values: dict[str, Any], name: str) -> bool:
    value = values.get(name)
    if value is not None and not isinstance(value, bool):
        message = f"{name}: neither true nor false"
        raise ApiError(message, name)
    return bool(value)
