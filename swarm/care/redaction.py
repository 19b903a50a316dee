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

_NAMES: Final = (
    r"(?:password|passwd|passphrase|pwd|secret|credential|token|api[_ -]?key|access[_-]?key|private[_-]?key|seed|mnemonic"
    r"|authorization|cookie)[\w-]{0,64}"
)
_TEXT: Final = r"\\{1,8}\"[^\"\n]*\"|\"(?:[^\"\\\n]|\\.)*\"?|\\{1,8}'[^'\n]*'|'(?:[^'\\\n]|\\.)*'?"
"""In quotes: of JSON or Python, with what is escaped in it, and of JSON in a text of JSON."""
_NAMED: Final = re.compile(
    rf"(?i)({_NAMES}(?:\\{{0,8}}[\"'])?\s{{0,32}}[=:]\s{{0,32}})(?:bearer\s+|basic\s+)?"
    rf"({_TEXT}|[^\s,;}}\]]+(?:[,;}}\]][^\s,;}}\]\"':=]+)*)"
)
_HEADER: Final = re.compile(r"(?i)(\b(?:proxy-)?(?:authorization|(?:set-)?cookie):\s*)[^\"'\n\\]+")
"""As HTTP writes it: all of the line is the value."""
_PAIR: Final = re.compile(rf"(?i)([\"'][\w-]{{0,64}}?{_NAMES}\\{{0,8}}[\"'],\s{{0,8}}b?)({_TEXT})")
"""A name and its value in a tuple, as lists of headers are shown."""
_FLAG: Final = re.compile(rf"(?i)(--[\w-]{{0,64}}?{_NAMES}\s{{1,8}})([^\s\"']+)")
_SIGNED: Final = re.compile(
    r"(?i)((?:[?&]|&amp;)[\w-]{0,64}(?:sig|signature|credential|policy|key-pair-id|auth)=)[^&\s\"'\\]+"
)
"""What lets whoever has a link fetch what it leads to."""
_BEARER: Final = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")
_KNOWN: Final = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk[-_][\w-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{20,}|glpat-[\w-]{16,}|npm_\w{30,}"
    r"|AIza[\w-]{30,}|A[KS]IA[A-Z0-9]{16}|xox[a-z]-[\w-]{10,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
_PEM: Final = re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\Z)", re.DOTALL)
_IN_URL: Final = re.compile(r"(?<=://)[^\s/@]{1,256}@")
_HOME: Final = re.compile(r"/(?:home|Users)/[^\s/:'\",;)\]}]+")
_IP4: Final = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\d)")
_IP6: Final = re.compile(
    r"(?:(?<![\w:.])|(?<=\\[nrt])|(?<=[A-Za-z_]:))[0-9a-fA-F:]{2,52}(?:\.\d{1,3}){0,3}"
)
"""With what may stand on its heels: a port, and the colon of a sentence."""
_PORT: Final = re.compile(r":\d{1,5}:?\Z")


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
    for named in (_HEADER, _NAMED, _PAIR, _FLAG, _SIGNED):
        text = named.sub(rf"\1{SECRET}", text)
    text = _BEARER.sub(rf"\1 {SECRET}", text)
    text = _KNOWN.sub(SECRET, text)
    text = _IN_URL.sub(f"{SECRET}@", text)
    if len(private.home) > 1:
        text = re.sub(rf"{re.escape(private.home)}(?![\w.-])", "~", text)
    text = _HOME.sub("~", text)
    for name, instead in ((private.user, "<user>"), (private.host, "<host>")):
        if 1 < len(name) <= MAX_NAME:
            text = re.sub(rf"(?i)(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", instead, text)
    if not private.keeps_addresses:
        text = _IP4.sub(_address, text)
        text = _IP6.sub(_address, text)
    return text


def _address(match: re.Match[str]) -> str:
    """An address that tells where a person is; one of the machine itself, or of every interface, tells nothing."""
    text = match[0]
    for one in (text, text.removesuffix(":"), text.rstrip(":"), _PORT.sub("", text)):
        try:
            found = ipaddress.ip_address(one)
        except ValueError:
            continue
        is_open = found.is_loopback or found.is_unspecified
        return text if is_open else ADDRESS + text[len(one) :]
    return text
