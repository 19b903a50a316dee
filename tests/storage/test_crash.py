"""What is left after a crash: everything that was acknowledged, and nothing torn."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage import cid as cids
from storage.blockstore import SegmentBlockstore
from storage.dag import links
from storage.segments import PREFIX_BYTES
from storage.walk import missing_below
from tests.storage.trees import accounted, open_store

ROOT = Path(__file__).parents[2]
WRITER = """
import random, sys, threading
from pathlib import Path
from storage import cid
from storage.blockstore import SegmentBlockstore

store = SegmentBlockstore(Path(sys.argv[1]), 2**34)
lock = threading.Lock()

def write(seed):
    source = random.Random(seed)
    while True:
        data = [source.randbytes(source.choice([10, 1000, 70_000, 2**20])) for _ in range(source.randint(1, 6))]
        pairs = [(cid.of_raw(each), each) for each in data]
        store.put_many(pairs)
        with lock:
            print(" ".join(name.hex() for name, _ in pairs), flush=True)

for number in range(2):
    threading.Thread(target=write, args=(f"{sys.argv[2]}-{number}",)).start()
"""


@pytest.mark.slow
def test_what_was_acknowledged_survives_kill_9(tmp_path):
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 shown when the test fails
    source = random.Random(seed)
    acknowledged = []
    for life in range(6):
        arguments = [sys.executable, "-c", WRITER, str(tmp_path / "chunks"), f"{seed}-{life}"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=ROOT, text=True) as writer:
            for _ in range(source.randint(1, 25)):
                acknowledged += [bytes.fromhex(name) for name in writer.stdout.readline().split()]
            writer.send_signal(signal.SIGKILL)
            # A line that was printed was acknowledged, even if nobody had read it yet; the last may be cut short.
            for line in writer.stdout:
                if line.endswith("\n"):
                    acknowledged += [bytes.fromhex(name) for name in line.split()]
        store = SegmentBlockstore(tmp_path / "chunks", 2**34)
        assert store.missing(acknowledged) == []
        assert store.verify() == []
        store.close()
    assert acknowledged


PUBLISHER = """
import random, sys, threading
from pathlib import Path
from storage.collection import Collector
from tests.storage.trees import leaf, open_store, tree

store = open_store(Path(sys.argv[1]), segment_bytes=200_000)
lock = threading.Lock()

def say(*words):
    with lock:
        print(*words, flush=True)

def publish(seed):
    source = random.Random(seed)
    mine = []
    for turn in range(10**9):
        leaves = [leaf(source.randrange(200), source.choice([10, 9_000])) for _ in range(source.randint(1, 9))]
        root, chunks = tree((seed, turn), leaves)
        with store.lease("publish"):
            store.put_many((cid, chunks[cid]) for cid in store.missing(chunks))
            store.pin(root, "")
        say("+", root.hex())
        mine.append(root)
        if len(mine) > 3:
            gone = mine.pop(source.randrange(len(mine)))
            say("-", gone.hex())
            store.unpin(gone)

def collect():
    while True:
        Collector(store, dead_share=0.3).run_once()

for number in range(2):
    threading.Thread(target=publish, args=(f"{sys.argv[2]}-{number}",)).start()
threading.Thread(target=collect).start()
"""


@pytest.mark.slow
def test_what_is_pinned_survives_kill_9_during_collections(tmp_path):
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 shown when the test fails
    source = random.Random(seed)
    pinned = set()
    for life in range(5):
        arguments = [sys.executable, "-c", PUBLISHER, str(tmp_path / "chunks"), f"{seed}-{life}"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=ROOT, text=True) as publisher:
            said = [publisher.stdout.readline() for _ in range(source.randint(100, 400))]
            publisher.send_signal(signal.SIGKILL)
            said += publisher.stdout
        for line in said:
            if line.endswith("\n"):
                change, root = line.split()
                (pinned.add if change == "+" else pinned.discard)(bytes.fromhex(root))
        store = open_store(tmp_path / "chunks", segment_bytes=200_000)
        assert store.verify() == []
        for root in pinned:
            assert list(missing_below(root, store, links)) == []
        assert accounted(store)
        removed = min(store.log.sizes()) > 1
        store.close()
    assert removed, "a collection was under way"


def write_three(folder):
    """Three chunks, with a copy of the index as it stood before the third."""
    pairs = [(cids.of_raw(data), data) for data in (b"a" * 50, b"b" * 60, b"c" * 70)]
    store = SegmentBlockstore(folder, 2**30)
    store.put_many(pairs[:2])
    store.close()
    shutil.copy(folder / "index.db", folder / "index.old")
    store = SegmentBlockstore(folder, 2**30)
    store.put_many(pairs[2:])
    store.close()
    return pairs


@pytest.mark.slow
@pytest.mark.parametrize("index", ["old", "new", "none"])
def test_a_torn_tail_is_cut_at_the_last_good_record(tmp_path, index):
    pairs = write_three(tmp_path / "chunks")
    segment = (tmp_path / "chunks" / "00000001.seg").read_bytes()
    last = 2 * PREFIX_BYTES + 110
    names = [cid for cid, _ in pairs]
    for end in [*range(last, last + PREFIX_BYTES + 2), *range(last + 48, len(segment), 9)]:
        folder = tmp_path / str(end)
        shutil.copytree(tmp_path / "chunks", folder)
        (folder / "00000001.seg").write_bytes(segment[:end])
        if index == "old":
            shutil.copy(folder / "index.old", folder / "index.db")
        elif index == "none":
            (folder / "index.db").unlink()
        store = SegmentBlockstore(folder, 2**30)
        assert store.missing(names) == names[2:]
        store.put_many(pairs)
        assert [store.get(cid) for cid in names] == [data for _, data in pairs]
        store.close()
        shutil.rmtree(folder)


def test_records_that_the_index_did_not_see_are_found(tmp_path):
    folder = tmp_path / "chunks"
    pairs = write_three(folder)
    shutil.copy(folder / "index.old", folder / "index.db")
    store = SegmentBlockstore(folder, 2**30)
    assert store.missing(cid for cid, _ in pairs) == []
    store.close()


def test_a_tail_of_zeros_or_rubbish_is_cut(tmp_path):
    folder = tmp_path / "chunks"
    pairs = write_three(folder)
    segment = folder / "00000001.seg"
    whole = segment.read_bytes()
    for tail in (bytes(5_000), b"\xff" * 5_000, b"\x01\x55\x12\x20" * 1_000):
        segment.write_bytes(whole + tail)
        store = SegmentBlockstore(folder, 2**30)
        assert segment.read_bytes() == whole
        assert store.missing(cid for cid, _ in pairs) == []
        store.close()
