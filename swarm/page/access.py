"""Who may read the page: one secret on disk, links that work once, and sessions that need no memory; no I/O but the file.

A browser sends the cookies of 127.0.0.1 to every port of it, whoever listens there.
So a session has two halves: a key, which the page holds for its own origin and sends in a header, and a cookie, which is
the secret's code over that key. Neither is of use alone.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from storage.files import DISK
from swarm.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILE: Final = "page.token"
SECRET_BYTES: Final = 32
MAX_FILE_BYTES: Final = 256
CODE_SECONDS: Final = 600.0
"""How long a link may be followed."""
MAX_CODES: Final = 16
"""Links at once that nobody has followed; the oldest goes."""
SESSION_SECONDS: Final = 30 * 86_400
MAX_TEXT: Final = 256
"""Characters of a code, a key, a cookie or a token."""
_KEY: Final = re.compile(r"[0-9a-f]{1,12}\.[\w-]{22}", re.ASCII)
_TOKEN: Final = re.compile(rb"[\w-]{43}\n", re.ASCII)


@dataclass(frozen=True, slots=True)
class Session:
    """What one browser holds.

    Attributes:
        key: Kept by the page, sent in a header.
        cookie: Kept by the browser; no script sees it.
    """

    key: str
    cookie: str


class Access:
    """The page's door.

    Args:
        token: The secret, as text: programs of the same user may show it instead of a session.
        now: Seconds since 1970.
    """

    def __init__(self, token: str, now: Callable[[], float] = time.time) -> None:
        self._token = token.encode()
        self._now = now
        self._codes: OrderedDict[bytes, float] = OrderedDict()
        self.cookie_name = f"swarm-{self._code_of('name')[:8]}"
        """Of this node alone: another node's page on another port shares the browser's cookies."""

    def new_code(self) -> str:
        """A code for one link."""
        code = secrets.token_urlsafe(16)
        self._codes[_hash(code)] = self._now() + CODE_SECONDS
        while len(self._codes) > MAX_CODES:
            self._codes.popitem(last=False)
        return code

    def exchange(self, code: str) -> Session | None:
        """A session for a code that was given out, not long ago and not used yet; None for any other."""
        until = self._codes.pop(_hash(code), 0.0)
        if self._now() >= until:
            return None
        ends = int(self._now()) + SESSION_SECONDS
        key = f"{ends:x}.{secrets.token_urlsafe(16)}"
        return Session(key, self._code_of(f"session {key}"))

    def lets_in(self, key: str, cookie: str) -> bool:
        """Whether both halves are those of one session that has not ended."""
        if _KEY.fullmatch(key) is None or self._now() >= int(key.partition(".")[0], 16):
            return False
        return _equal(cookie.encode(errors="replace"), self._code_of(f"session {key}").encode())

    def is_token(self, text: str) -> bool:
        """Whether a program shows the secret itself."""
        return _equal(text.encode(errors="replace"), self._token)

    def _code_of(self, text: str) -> str:
        code = hmac.digest(self._token, f"swarm page 1\0{text}".encode(), "sha256")
        return base64.urlsafe_b64encode(code).rstrip(b"=").decode()


def load_or_create(home: Path) -> str:
    """The secret of a data folder; written (0600) where there is none, and anew where it is damaged.

    Raises:
        RefusedError: Other users can read it.
    """
    path = home / FILE
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            data = file.read(MAX_FILE_BYTES)
    except FileNotFoundError:
        mode, data = 0, b""
    if mode & 0o077:
        message = f"the page's token {path} is open to other users (mode {mode:04o})"
        raise RefusedError(message, f"rm {path} makes a new one, and ends every session")
    if _TOKEN.fullmatch(data):
        return data.decode().rstrip()
    token = secrets.token_urlsafe(SECRET_BYTES)
    DISK.replace(path, f"{token}\n".encode())
    return token


def _hash(code: str) -> bytes:
    return hashlib.sha256(code.encode(errors="replace")).digest()


def _equal(one: bytes, other: bytes) -> bool:
    return hmac.compare_digest(one, other)
