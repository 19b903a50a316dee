"""Who this node is: its secret key on disk, and the lock that keeps one process on a folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Self

from protocols.signing import Signer
from storage.errors import OTHER_PROGRAM
from swarm.errors import RefusedError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

KEY_FILE = "identity.key"
LOCK_FILE = "node.lock"
BACKUP_FILE = "identity.backup"
"""Holds the peer id of the key of which a person has shown to have the words."""

LOOKS = 100
LOOK_SECONDS = 0.001
"""Of one who looks whether a lock is held; a start waits for so many."""

SEED_BYTES = 32
_NAME = "swarm-identity "
_VERSION = "1"
_HEADER = _NAME + _VERSION
"""First line of the key file: what it is and its version; the second is the seed in hex."""


def make_home(folder: Path) -> None:
    """Make a data folder that only its owner can enter (0700).

    Raises:
        RefusedError: It cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        message = f"the data folder {folder} cannot be made: {error.strerror}"
        raise RefusedError(message) from error


@dataclass(frozen=True, slots=True)
class Identity:
    """The node's key pair: peer id, ledger account and vote in one.

    Attributes:
        signer: Signs with it.
    """

    signer: Signer

    @property
    def peer(self) -> str:
        """The peer id, which is the account too."""
        return self.signer.peer_id

    @classmethod
    def load_or_create(cls, folder: Path) -> Identity:
        """Read the key file of a data folder, or write a new one (0600), durable when it returns.

        Raises:
            RefusedError: The file is damaged, of another version, open to other users, or cannot be read or written.
        """
        make_home(folder)
        path = folder / KEY_FILE
        try:
            return cls(Signer(_read_seed(path)))
        except FileNotFoundError:
            pass
        seed = secrets.token_bytes(SEED_BYTES)
        try:
            _write_seed(path, seed)
        except FileExistsError:  # another process was first
            seed = _read_seed(path)
        except OSError as error:
            message = f"the key file {path} cannot be written: {error.strerror}"
            raise RefusedError(message) from error
        return cls(Signer(seed))

    @classmethod
    def restore(cls, folder: Path, seed: bytes, *, force: bool = False) -> Path | None:
        """Put a key into a data folder in which no node runs, durable when it returns.

        Args:
            folder: The data folder; made where it is missing.
            seed: 32 bytes, of the words that a person kept.
            force: Put it in the place of another key, which is kept beside it.

        Returns:
            Where the other key went; None where there was none, or the same.

        Raises:
            RefusedError: Another key is there, a node runs, or the file cannot be replaced.
        """
        with NodeLock(folder):
            path = folder / KEY_FILE
            if not path.exists():
                _write_seed(path, seed)
                return None
            try:
                if _read_seed(path) == seed:
                    return None
            except RefusedError:
                if not force:
                    raise
            if not force:
                message = f"{path} holds another key, which would be lost"
                raise RefusedError(message, "--force keeps it beside the restored one")
            old = path.with_name(f"{KEY_FILE}.{secrets.token_hex(4)}.old")
            os.link(path, old)
            old.chmod(0o600)
            fresh = path.with_name(f"{KEY_FILE}.{secrets.token_hex(8)}")
            _write_seed(fresh, seed)
            fresh.replace(path)
            _sync(folder)
            return old


def is_backed_up(folder: Path, peer: str) -> bool:
    """Whether a person has shown to have the words of this key."""
    try:
        return (folder / BACKUP_FILE).read_text(encoding="ascii").strip() == peer
    except (OSError, ValueError):
        return False


def note_backup(folder: Path, peer: str) -> None:
    """Note that a person has the words of this key."""
    (folder / BACKUP_FILE).write_text(f"{peer}\n", encoding="ascii")


def _read_seed(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            data = file.read(4096)
    except FileNotFoundError:
        raise
    except OSError as error:
        message = f"the key file {path} cannot be read: {error.strerror}"
        raise RefusedError(message) from error
    if mode & 0o077:
        message = f"the key file {path} is open to other users (mode {mode:04o})"
        raise RefusedError(message, f"chmod 600 {path}")
    lines = data.decode("ascii", "replace").split("\n")
    version = lines[0].removeprefix(_NAME)
    if lines[0].startswith(_NAME) and version.isdigit() and version != _VERSION:
        message = f"the key file {path} is of version {version}, and this program reads {_VERSION}"
        raise RefusedError(message, OTHER_PROGRAM)
    try:
        seed = bytes.fromhex(lines[1]) if len(lines) == 3 and lines[2] == "" else b""
    except ValueError:
        seed = b""
    if lines[0] != _HEADER or len(seed) != SEED_BYTES:
        message = f"the key file {path} is damaged"
        raise RefusedError(message, "put your backup of it back; a new key is a new account")
    return seed


def _write_seed(path: Path, seed: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(f"{_HEADER}\n{seed.hex()}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # unlike a rename, never takes the place of a key
    finally:
        temporary.unlink()
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Whether a process holds the lock of a data folder now."""
    try:
        with (folder / LOCK_FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _hold(file: IO[str]) -> None:
    """Take the lock of a data folder; who only looks whether it is held has it for a moment.

    Raises:
        BlockingIOError: A node has it.
        OSError: The file system has no locks.
    """
    for _ in range(LOOKS):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # with one who looks, and not with a node
        fcntl.flock(file, fcntl.LOCK_UN)
        time.sleep(LOOK_SECONDS)  # noqa: TID251 - of a start
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class NodeLock:
    """One process on a data folder: held from the construction until `close`.

    The kernel lets go of the lock when the process ends in whatever way; the file stays and says who
    held it last.

    Args:
        folder: The data folder; made where it is missing.
        is_temporary: The node of one command, which ends with it.

    Raises:
        RefusedError: Another process holds it; the message names its id.
    """

    def __init__(self, folder: Path, *, is_temporary: bool = False) -> None:
        make_home(folder)
        try:
            self._file = (folder / LOCK_FILE).open("a+")
        except OSError as error:
            message = f"nothing can be written in the data folder {folder}: {error.strerror}"
            raise RefusedError(message) from error
        try:
            _hold(self._file)
        except BlockingIOError as error:
            self._file.seek(0)
            pid, _, of_command = self._file.read(32).strip().partition(" ")
            self._file.close()
            if of_command:
                message = f"a command's own node works in {folder}, process {pid}"
                raise RefusedError(
                    message, "start this again when that command has ended"
                ) from error
            message = f"{folder} is in use by another node, process {pid or 'unknown'}"
            raise RefusedError(message, f"stop it with: kill {pid}" if pid else None) from error
        except OSError as error:  # a file system without locks
            self._file.close()
            message = f"the data folder {folder} cannot be locked: {error.strerror}"
            raise RefusedError(message, "put it on a disk of this machine") from error
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}{' temporary' * is_temporary}\n")
        self._file.flush()

    def close(self) -> None:
        """Let another process have the folder."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
