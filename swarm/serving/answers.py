"""The shapes of answers, as OpenAI's clients read them. No I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swarm.training.completion import Completed, Loaded

    Json = dict[str, Any]

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Served:
    """The checkpoint that answers.

    Attributes:
        name: The model's, on the ledger.
        version: Of it.
        cid: The checkpoint's.
        created: UTC seconds when it was taken up.
        loaded: What it is.
    """

    name: str
    version: int
    cid: str
    created: int
    loaded: Loaded

    @property
    def label(self) -> str:
        """`NAME@VERSION`."""
        return f"{self.name}@{self.version}"

    def is_meant(self, model: str) -> bool:
        """Whether a request's `model` is this one."""
        return model.removeprefix("swarm/") in (self.name, self.label, self.cid)

    def headers(self) -> dict[str, str]:
        """Which checkpoint answers, for clients that do not look into the body."""
        return {"x-swarm-cid": self.cid, "x-swarm-model": self.label}

    def to_json(self) -> Json:
        """The model as `/v1/models` tells it."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "swarm",
            "swarm": {
                "version": self.version,
                "cid": self.cid,
                "shape": self.loaded.shape,
                "context": self.loaded.context,
                "vocabulary": self.loaded.vocabulary,
                "parameters": self.loaded.parameters,
            },
        }


@dataclass(frozen=True, slots=True)
class Form:
    """What every part of one answer says.

    Attributes:
        identifier: The answer's, without its prefix.
        created: UTC seconds.
        served: Who answers.
        is_chat: Whether messages were asked about.
    """

    identifier: str
    created: int
    served: Served
    is_chat: bool

    def whole(self, text: str, done: Completed) -> Json:
        """The answer at once."""
        said = {"message": {"role": "assistant", "content": text, "refusal": None}}
        choice = self._choice(said if self.is_chat else {"text": text}, done.finish)
        answer = self._frame("chat.completion" if self.is_chat else "text_completion", [choice])
        return answer | {"usage": usage(done)}

    def first(self) -> Json:
        """The first event of a stream."""
        return self._event("", "assistant")

    def piece(self, text: str) -> Json:
        """An event with some text."""
        return self._event(text)

    def last(self, done: Completed) -> Json:
        """The event that says why it ended."""
        return self._event(None, finish=done.finish)

    def counts(self, done: Completed) -> Json:
        """The event with the counts, which has no choices."""
        return self._frame(self._stream_object, []) | {"usage": usage(done)}

    @property
    def _stream_object(self) -> str:
        return "chat.completion.chunk" if self.is_chat else "text_completion"

    def _event(self, text: str | None, role: str | None = None, finish: str | None = None) -> Json:
        if self.is_chat:
            delta = {"role": role} if role is not None else {}
            said: Json = {"delta": delta if text is None else delta | {"content": text}}
        else:
            said = {"text": text or ""}
        return self._frame(self._stream_object, [self._choice(said, finish)])

    def _choice(self, said: Json, finish: str | None) -> Json:
        return {"index": 0, **said, "logprobs": None, "finish_reason": finish}

    def _frame(self, kind: str, choices: list[Json]) -> Json:
        prefix = "chatcmpl" if self.is_chat else "cmpl"
        return {
            "id": f"{prefix}-{self.identifier}",
            "object": kind,
            "created": self.created,
            "model": self.served.label,
            "system_fingerprint": self.served.cid,
            "choices": choices,
        }


def usage(done: Completed) -> Json:
    """The counts of tokens."""
    return {
        "prompt_tokens": done.prompt_tokens,
        "completion_tokens": done.completion_tokens,
        "total_tokens": done.prompt_tokens + done.completion_tokens,
    }


def event(value: Json) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"
