"""A disk that keeps what was synced and forgets, tears or refuses the rest, as the test asks."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass, field
from itertools import count

from storage.files import Files

DATABASES = ("pins.db", "references.db")


@dataclass
class Inode:
    """A file's bytes as the last sync left them, and the writes and cuts since."""

    durable: bytearray = field(default_factory=bytearray)
    since: list = field(default_factory=list)

    def all(self):
        return self.some(lambda _: 1.0)

    def some(self, share):
        content = bytearray(self.durable)
        for operation in self.since:
            apply(content, operation, share(operation))
        return bytes(content)


def apply(content, operation, share):
    """Carry out a write or a cut, or the first part of it."""
    kind, offset, data = operation
    if kind == "cut":
        if share == 1.0:
            del content[offset:]
        return
    data = data[: int(len(data) * share)]
    if len(content) < offset and data:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class FaultyDisk(Files):
    """Writes real files, and knows what of them a power cut would leave.

    `before` is called before each operation that changes the disk, with its name; `faults` maps the number of an
    operation to the errno that it fails with, and `short` makes every write take half of what it is given.
    """

    def __init__(self, before=lambda operation: None, faults=None, *, short=False):
        self.before = before
        self.faults = faults or {}
        self.short = short
        self.operations = 0
        self.names = {}
        self.durable_names = {}
        self.name_changes = []
        self.handles = {}
        self._numbers = count()

    def point(self, operation):
        self.operations += 1
        self.before(operation)
        if self.operations in self.faults:
            code = self.faults[self.operations]
            raise OSError(code, os.strerror(code))

    def create(self, path):
        self.point("create")
        handle = super().create(path)
        inode = Inode()
        self.names[path.name] = self.handles[handle] = inode
        self.name_changes.append(((path.name, inode),))
        return handle

    def open(self, path):
        handle = super().open(path)
        self.handles[handle] = self.inode(path)
        return handle

    def write(self, descriptor, buffers, offset):
        data = b"".join(bytes(buffer) for buffer in buffers)
        if self.short and len(data) > 1:
            data = data[: len(data) // 2]
        inode = self.handles[descriptor]
        inode.since.append(("write", offset, data))
        try:
            self.point("write")
        except OSError:
            # A part of it reached the disk.
            inode.since[-1] = ("write", offset, data[: len(data) // 3])
            super().write(descriptor, [data[: len(data) // 3]], offset)
            raise
        return super().write(descriptor, [data], offset)

    def sync(self, descriptor):
        self.point("sync")
        inode = self.handles[descriptor]
        inode.durable, inode.since = bytearray(inode.all()), []

    def truncate(self, path, size):
        self.point("truncate")
        self.inode(path).since.append(("cut", size, b""))
        super().truncate(path, size)

    def rename(self, old, new):
        self.point("rename")
        inode = self.names.pop(old.name)
        self.names[new.name] = inode
        self.name_changes.append(((old.name, None), (new.name, inode)))
        super().rename(old, new)

    def unlink(self, path):
        self.point("unlink")
        self.inode(path)
        del self.names[path.name]
        self.name_changes.append(((path.name, None),))
        super().unlink(path)

    def sync_folder(self, folder):
        self.point("sync folder")
        self.durable_names = dict(self.names)
        self.name_changes = []

    def close(self, descriptor):
        del self.handles[descriptor]
        super().close(descriptor)

    def inode(self, path):
        if path.name not in self.names:
            self.names[path.name] = Inode(bytearray(path.read_bytes()))
            self.durable_names[path.name] = self.names[path.name]
        return self.names[path.name]

    def after_kill(self, folder, target, source):
        """What a killed process leaves: all that was written, and a part of the write under way."""
        target.mkdir()
        for name, inode in self.names.items():
            last = inode.since[-1] if inode.since else None
            torn = source.choice([0.0, 0.5, 1.0])
            content = inode.some(lambda each, last=last, torn=torn: torn if each is last else 1.0)
            (target / name).write_bytes(content)
        copy_databases(folder, target, ("index.db", *DATABASES))

    def after_power_cut(self, folder, target, source):
        """What a power cut leaves: all that was synced, and any of the rest, in any part."""
        target.mkdir()
        names = dict(self.durable_names)
        for change in self.name_changes:
            if source.random() < 0.5:
                for name, inode in change:
                    names.pop(name, None)
                    if inode is not None:
                        names[name] = inode
        for name, inode in names.items():
            content = inode.some(lambda _: source.choice([0.0, source.random(), 1.0]))
            (target / name).write_bytes(content)
        copy_databases(folder, target, DATABASES)
        # The index is not synced at each change: it loses its last transactions, or is lost.
        if source.random() < 0.8:
            copy_databases(folder, target, ("index.db",))
            log = target / "index.db-wal"
            if log.exists():
                os.truncate(log, int(log.stat().st_size * source.choice([0, source.random(), 1])))


def copy_databases(folder, target, names):
    for name in names:
        for each in (name, name + "-wal"):
            if (folder / each).exists():
                shutil.copy(folder / each, target / each)


FULL = errno.ENOSPC
BROKEN = errno.EIO
