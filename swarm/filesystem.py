"""The swarm as a file system for pandas, pyarrow, datasets and all else that knows fsspec.

    import pandas
    pandas.read_parquet("swarm://bafybei…/train/0001.parquet", columns=["label"])

A path is `<cid>/<path below it>`; what a CID names never changes, so nothing here is ever written.
A symbolic link is told as `link`, and what it leads to is read; a link never leaves what its CID names.
What takes a whole folder takes the bytes of files that links lead to, and leaves other links out with a warning.
A running node on this machine is asked, which fetches the chunks that hold the bytes asked for, and no others.
Options: `home`, the node's data folder, if it is not the default one.
"""

from __future__ import annotations

import errno
import os
import posixpath
import warnings
from pathlib import Path
from typing import Any

from fsspec.spec import (  # type: ignore[import-untyped]
    AbstractBufferedFile,
    AbstractFileSystem,
)

from swarm.client import Client
from swarm.errors import NotFoundError, UsageError
from swarm.sockets import socket_of

Info = dict[str, Any]

BLOCK_BYTES = 2**20
"""Read ahead by an open file; a leaf of ours is as large."""
MAX_LINKS = 16
"""Symbolic links, each to the next, that are followed."""
_KINDS = {"file": "file", "folder": "directory", "symlink": "link"}


class SwarmFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Files and folders of the swarm, to be read.

    Args:
        home: The data folder of the node that is asked; None is the default one.
        options: For fsspec's own.
    """

    protocol = "swarm"
    root_marker = ""

    def __init__(self, home: str | Path | None = None, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self._socket = socket_of(_default_home() if home is None else Path(home))

    @property
    def fsid(self) -> str:
        """The same for every node: a path means the same bytes everywhere."""
        return "swarm"

    def info(self, path: str, **_options: Any) -> Info:  # noqa: ANN401
        """What stands at a path: `name`, `type`, `size`, `cid`, `mode`."""
        path = self._strip_protocol(path)
        root, _, below = path.partition("/")
        with self._client() as client, _Missing(path):
            return _info(path, client.look(root, below))

    def ls(self, path: str, detail: bool = True, **_options: Any) -> list[Any]:  # noqa: ANN401
        """What stands in a folder, or the file itself."""
        path = self._strip_protocol(path)
        root, _, below = path.partition("/")
        itself = self.info(path)
        found = [itself]
        if itself["type"] == "directory":
            with self._client() as client, _Missing(path):
                entries = client.entries(root, below)
            found = [_info(f"{path}/{entry['name']}", entry) for entry in entries]
        return found if detail else [one["name"] for one in found]

    def expand_path(
        self,
        path: str | list[str],
        recursive: bool = False,
        maxdepth: int | None = None,
        **options: Any,  # noqa: ANN401
    ) -> list[str]:
        """The paths that a pattern or a folder stands for; below a folder, no links that lead to no file of it."""
        found = super().expand_path(path, recursive, maxdepth, **options)
        if not recursive or isinstance(path, str | os.PathLike):  # which comes here again as a list
            return list(found)
        named = {self._strip_protocol(one) for one in path}
        return [one for one in found if one in named or self._is_taken(one)]

    def _is_taken(self, path: str) -> bool:
        """Whether there are bytes at a path, or a folder."""
        if self.info(path)["type"] != "link":
            return True
        try:
            self._file_at(path)
        except OSError as error:
            warnings.warn(f"left out: {path} is a link to no file ({error})", stacklevel=2)
            return False
        return True

    def cat_file(
        self,
        path: str,
        start: int | None = None,
        end: int | None = None,
        **_options: Any,  # noqa: ANN401
    ) -> bytes:
        """Bytes of a file, from `start` to before `end`; negative ones count from its end."""
        path, size = self._file_at(path)
        if (start or 0) < 0 or (end or 0) < 0:
            start = max(0, size + start) if start is not None and start < 0 else start
            end = max(0, size + end) if end is not None and end < 0 else end
        return self._read(path, start or 0, end)

    def _file_at(self, path: str) -> tuple[str, int]:
        """The path of the file that a path leads to, past symbolic links at its end, and the file's size."""
        path = at = self._strip_protocol(path)
        with self._client() as client, _Missing(path):
            for _ in range(MAX_LINKS):
                root, _, below = at.partition("/")
                told = client.look(root, below)
                if told["kind"] == "folder":
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
                if told["kind"] == "file":
                    return at, int(told["size"])
                target = client.read(root, below).decode(errors="replace")
                at = posixpath.normpath(posixpath.join(posixpath.dirname(at), target))
                if at.partition("/")[0] != root:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)

    def _read(self, path: str, start: int, end: int | None) -> bytes:
        root, _, below = path.partition("/")
        with self._client() as client, _Missing(path):
            return client.read(root, below, start, None if end is None else max(0, end - start))

    def checksum(self, path: str) -> str:
        """The CID: it changes with every byte."""
        return str(self.info(path)["cid"])

    def ukey(self, path: str) -> str:
        """The CID."""
        return self.checksum(path)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        **options: Any,  # noqa: ANN401
    ) -> SwarmFile:
        del autocommit
        if mode != "rb":
            raise _never_written(path)
        return SwarmFile(
            self,
            self._file_at(path)[0],
            mode,
            block_size=block_size or BLOCK_BYTES,
            cache_options=cache_options,
            **options,
        )

    def mkdir(self, path: str, create_parents: bool = True, **_options: Any) -> None:  # noqa: ANN401
        """Refused, as everything that writes.

        Raises:
            OSError: Always: the file system is read-only.
        """
        raise _never_written(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Refused; see `mkdir`."""
        raise _never_written(path)

    def rmdir(self, path: str) -> None:
        """Refused; see `mkdir`."""
        raise _never_written(path)

    def rm_file(self, path: str) -> None:
        """Refused; see `mkdir`."""
        raise _never_written(path)

    def cp_file(self, path1: str, path2: str, **_options: Any) -> None:  # noqa: ANN401
        """Refused; see `mkdir`."""
        raise _never_written(path2)

    def _client(self) -> Client:
        return Client(self._socket)


class SwarmFile(AbstractBufferedFile):  # type: ignore[misc]
    """One open file; reads ahead within `block_size`."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs._read(self.path, start, end))


class _Missing:
    """Turns what the node does not find into what file systems raise."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, NotFoundError | UsageError):  # nothing stands at what is no CID
            raise FileNotFoundError(f"swarm://{self._path}: {error.message}") from error  # noqa: EM102


def _never_written(path: str) -> OSError:
    return OSError(errno.EROFS, "what a CID names is not written", path)


def _info(path: str, told: Info) -> Info:
    return {
        "name": path,
        "type": _KINDS[told["kind"]],
        "size": told["size"] if told["kind"] == "file" else 0,
        "cid": told["cid"],
        "mode": told["mode"],
    }


def _default_home() -> Path:
    from swarm.config import Settings, default_settings_file

    return Settings.build({}, os.environ, default_settings_file()).home
