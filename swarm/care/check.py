"""One line of the doctor: what was looked at, how it is, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Verdict: TypeAlias = Literal["good", "warn", "bad", "unknown"]


@dataclass(frozen=True, slots=True)
class Check:
    """What one look found.

    Attributes:
        name: What was looked at.
        verdict: How it is; `unknown` where this machine cannot tell by itself.
        text: One line, with the values that matter and their units.
        fix: A command or a step that mends it; empty where nothing is to be mended.
    """

    name: str
    verdict: Verdict
    text: str
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "text": self.text,
            "fix": self.fix or None,
        }


def good(name: str, text: str) -> Check:
    """All is well."""
    return Check(name, "good", text)


def warn(name: str, text: str, fix: str = "") -> Check:
    """It works, and could be better or soon be worse."""
    return Check(name, "warn", text, fix)


def bad(name: str, text: str, fix: str) -> Check:
    """It does not work, or loses tokens."""
    return Check(name, "bad", text, fix)


def unknown(name: str, text: str, fix: str = "") -> Check:
    """It cannot be told from here."""
    return Check(name, "unknown", text, fix)
