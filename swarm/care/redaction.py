"""Takes out of a text what nobody else should read: keys, tokens, the user's name and folders, addresses; pure.

Peer ids, CIDs and chain ids stay: the ledger shows them to everybody, and without them a log says nothing.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

SECRET: Final = "<secret>"  # noqa: S105 - what stands in its place
ADDRESS: Final = "<address>"
MAX_NAME: Final = 64

_NAMED: Final = re.compile(
    r"(?i)((?:password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key|seed|mnemonic|authorization|cookie)[\w-]{0,64}"
    r"(?:\\*[\"'])?\s{0,8}[=:]\s{0,8})(?:bearer\s+|basic\s+)?(\"[^\"\n]*\"|'[^'\n]*'|[^\s,;}\]]+)"
)
_BEARER: Final = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")
_KNOWN: Final = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[\w-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{20,}|AKIA[A-Z0-9]{16}|xox[abp]-[\w-]{10,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
_PEM: Final = re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\Z)", re.DOTALL)
_IN_URL: Final = re.compile(r"(?<=://)[^\s/@]{1,256}@")
_HOME: Final = re.compile(r"(?<![\w.-])/(?:home|Users)/[^\s/:'\",;)\]}]+")
_IP4: Final = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d\.\d)")
_IP6: Final = re.compile(r"(?<![\w:.])[0-9a-fA-F:]{2,45}(?:\.\d{1,3}){0,3}")


@dataclass(frozen=True, slots=True)
class Private:
    """What is private on this machine.

    Attributes:
        home: The user's home folder.
        user: The user's name.
        host: The machine's name.
        secrets: Texts that must not appear: the seed of the key.
        keeps_addresses: Whether IP addresses stay.
    """

    home: str = ""
    user: str = ""
    host: str = ""
    secrets: tuple[str, ...] = ()
    keeps_addresses: bool = False


def redact(text: str, private: Private) -> str:
    """The text without what is private."""
    for secret in private.secrets:
        if secret:
            text = re.sub(re.escape(secret), SECRET, text, flags=re.IGNORECASE)
    text = _PEM.sub(SECRET, text)
    text = _NAMED.sub(rf"\1{SECRET}", text)
    text = _BEARER.sub(rf"\1 {SECRET}", text)
    text = _KNOWN.sub(SECRET, text)
    text = _IN_URL.sub(f"{SECRET}@", text)
    if len(private.home) > 1:
        text = re.sub(rf"{re.escape(private.home)}(?![\w.-])", "~", text)
    text = _HOME.sub("~", text)
    for name, instead in ((private.user, "<user>"), (private.host, "<host>")):
        if 1 < len(name) <= MAX_NAME:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", instead, text)
    if not private.keeps_addresses:
        text = _IP4.sub(_address, text)
        text = _IP6.sub(_address, text)
    return text


def _address(match: re.Match[str]) -> str:
    """An address that tells where a person is; one of the machine itself, or of every interface, tells nothing."""
    try:
        found = ipaddress.ip_address(match[0])
    except ValueError:
        return match[0]
    return match[0] if found.is_loopback or found.is_unspecified else ADDRESS
