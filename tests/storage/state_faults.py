"""What a state store goes through in processes of its own: `python -m tests.storage.state_faults WHAT FOLDER SEED`.

LMDB maps its file into memory, so damage can end the process that reads it; each trial is a fork that may die.
"""

from __future__ import annotations

import collections
import os
import random
import resource
import select
import shutil
import signal
import sys
import traceback
from pathlib import Path

from storage import state_check
from storage.errors import DiskFullError, FormatError, LogError, StorageError
from storage.state_store import StateStore
from storage.state_tree import verify_proof

KILLS = 40
FLIPS = 60
SAME, REFUSED, WRONG, FULL = 0, 10, 11, 12


def tell(number) -> None:
    """One line for the test that started this."""
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()  # or each fork says it again


def commit(store, height) -> None:
    body = b"%d" % height
    changes = {b"k%d" % (height * 7 % 300 + at): body * 9 for at in range(20)}
    gone = {b"k%d" % (height * 11 % 300): None}
    layer = store.view().layer({**changes, **gone, b"at": body})
    store.commit(layer, body, layer.root, height, {b"note" + body: body})


def check(folder, least) -> int:
    """The height that a store holds, all of it and nothing else.

    Raises:
        AssertionError: It does not.
    """
    store = StateStore(folder)
    try:
        height, view = store.height, store.view()
        assert height >= least, f"height {height} where {least} was told"
        for at in range(height + 1):
            assert store.block(at)[0] == b"%d" % at
            assert store.note(b"note%d" % at) == b"%d" % at
        assert store.block(height + 1) is None
        assert store.note(b"note%d" % (height + 1)) is None
        if height >= 0:
            assert view.get(b"at") == b"%d" % height
            assert store.block(height)[1] == view.root
            assert verify_proof(view.root, b"at", b"%d" % height, store.prove(b"at"))
        return height
    finally:
        store.close()


def kills(folder, seed) -> None:
    """Kill a process that commits, again and again, at any moment."""
    source, height = random.Random(seed), -1
    for _ in range(KILLS):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            store = StateStore(folder, map_bytes=2**20)
            while True:
                commit(store, store.height + 1)
                os.write(writing, b"%d\n" % store.height)
        os.close(writing)
        told = os.read(reading, 64)  # it commits now
        select.select([], [], [], source.random() * 0.02)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while more := os.read(reading, 4096):
            told += more
        os.close(reading)
        height = check(folder, int(told.split()[-1]))
    tell(height)


def made(folder, heights=12) -> Path:
    store = StateStore(folder, map_bytes=2**20)
    for height in range(heights):
        commit(store, height)
    store.close()
    return folder / "data.mdb"


def outcome(folder, trial) -> int:
    """What a trial comes to, in a process of its own; above 128 it died of that signal."""
    child = os.fork()
    if child == 0:
        code = WRONG
        try:
            trial(folder)
            code = SAME
        except DiskFullError:
            code = FULL
        except FormatError:
            code = REFUSED
        except LogError as error:
            code = REFUSED if "move it away" in str(error) else WRONG
        except StorageError:
            code = REFUSED
        except BaseException:
            traceback.print_exc()  # the test shows it
            raise
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def values_of(folder) -> tuple:
    store = StateStore(folder)
    try:
        # Where the number of its records is damaged a node checks it while it runs.
        if not store.is_checked:
            collections.deque(store.check(), maxlen=0)
        return store.height, store.view().root, dict(store.view().scan(b""))
    finally:
        store.close()


def damage(folder, seed) -> None:
    """Change bytes of the file; a line for each trial says what came of it."""
    source = random.Random(seed)
    file = made(folder / "whole")
    right, whole = values_of(folder / "whole"), file.read_bytes()
    # LMDB keeps two heads: where the newer one is damaged it opens with the older, a height that was final as well.
    made(folder / "earlier", 11)
    before = [right, values_of(folder / "earlier")]

    def trial(home) -> None:
        if values_of(home) not in before:
            os._exit(WRONG)

    for at in range(FLIPS):
        home = folder / str(at)
        home.mkdir()
        changed = bytearray(whole)
        places = [source.randrange(len(whole)) for _ in range(1 + at % 5)]
        if at % 2:  # in a value
            places = [whole.rindex(b"11" * 9) + source.randrange(18)]
        for place in places:
            changed[place] ^= 1 << source.randrange(8)
        (home / "data.mdb").write_bytes(changed)
        tell(outcome(home, trial))
        shutil.rmtree(home)


def torn(folder, _seed) -> None:
    """Cut the file at each page, and in the middle of one."""
    file = made(folder / "whole")
    right, whole = values_of(folder / "whole"), file.read_bytes()

    def trial(home) -> None:
        if values_of(home) != right:
            os._exit(WRONG)

    for length in [*range(4096, len(whole), 4096 * 3), 1, 5000, len(whole) - 1]:
        home = folder / str(length)
        home.mkdir()
        (home / "data.mdb").write_bytes(whole[:length])
        tell(outcome(home, trial))
        shutil.rmtree(home)


def full(folder, _seed) -> None:
    """Commit until no more fits; then go on with more room."""
    home = folder / "full"
    made(home)
    size = (home / "data.mdb").stat().st_size

    def trial(at) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 64 * 4096, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        state_check.LITTLE_BYTES = 2**62  # no disk of a test is really full
        store = StateStore(at)
        for _ in range(10_000):
            before = store.height
            try:
                commit(store, store.height + 1)
            except StorageError:
                assert store.height == before
                assert store.view().get(b"at") == b"%d" % before
                raise

    tell(outcome(home, trial))
    reached = check(home, 12)
    store = StateStore(home)
    commit(store, reached + 1)
    store.close()
    check(home, reached + 1)


if __name__ == "__main__":
    what = {"kills": kills, "damage": damage, "torn": torn, "full": full}[sys.argv[1]]
    what(Path(sys.argv[2]), int(sys.argv[3]))
