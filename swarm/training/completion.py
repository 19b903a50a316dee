"""What is asked of a language model, and what comes of it; as the node and its worker process say it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

MAX_TOKENS: Final = 4_096
"""Tokens that one completion may have."""
Finish: TypeAlias = Literal["stop", "length", "too_long"]
STOP: Final = "stop"
LENGTH: Final = "length"
TOO_LONG: Final = "too_long"


@dataclass(frozen=True, slots=True)
class CompletionJob:
    """A prompt to be continued."""

    checkpoint: Path  # its folder
    prompt: str
    max_tokens: int
    temperature: float = 1.0  # 0 takes the likeliest token each time
    top_p: float = 1.0  # only the likeliest tokens that have so much of the probability
    seed: int = 0  # equal seeds give equal text on one machine
    stops: list[str] = field(default_factory=list)  # ends before any of these
    truncate: int | None = None  # read only so many last tokens of the prompt; 0: as many as fit


@dataclass(frozen=True, slots=True)
class Completed:
    """How a completion ended; its text was told while it was made."""

    finish: (
        Finish  # `too_long`: the prompt has more tokens than the model's context, nothing was made
    )
    prompt_tokens: int
    completion_tokens: int
    context: int  # tokens that the model sees at once


@dataclass(frozen=True, slots=True)
class Loaded:
    """A language model that is ready."""

    name: str
    version: int
    shape: str  # "gpt" or "llama"
    context: int
    vocabulary: int
    parameters: int
