"""A keeper with slots and a root to keep, and the audits that are made of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from protocols.audit.draw import answer_root, draw_leaves, held_seed
from protocols.audit.verify import Commitment, Sealing
from protocols.signing import Signer
from storage import cid as cids
from storage import sampling
from storage.memory import MemoryBlockstore
from storage.slots import SlotStore
from storage.unixfs import add_path

CHAIN = b"c" * 32
SEALING = Sealing(CHAIN, 4, 2)
SEED, SEED2 = b"1" * 32, b"2" * 32
DEAL = b"d" * 32
LEAVES = 12
SIGNER = Signer(b"k" * 32)


def chunk(text):
    data = text.encode() * 1000
    return cids.of_raw(data), data


@dataclass
class Keeper:
    """Answers as the protocol asks; a test overrides what it lies about."""

    slots: SlotStore
    store: MemoryBlockstore
    root: cids.Cid
    commitment: Commitment
    auditors: set[str] = field(default_factory=set)
    seed: bytes = SEED
    duties: int = 0
    asked: list[str] = field(default_factory=list)

    @property
    def answer(self):
        return answer_root([one.leaf for one in self.drawn()])

    def drawn(self):
        kept = self.commitment
        return draw_leaves(
            self.seed,
            kept.keeper,
            kept.slots,
            LEAVES,
            lambda slot, number: self.slots.prove(kept.root, slot, number),
        )

    def allows(self, audit, peer):
        return audit == 7 and peer in self.auditors

    def pieces(self, audit):
        return self.duties

    def leaves(self, audit):
        self.asked.append("leaves")
        return self.drawn()

    def slot(self, audit, slot):
        self.asked.append("slot")
        return self.slots.prove_slot(self.commitment.root, slot)

    def held(self, audit, deal, piece):
        self.asked.append("held")
        seed = held_seed(SEED2, self.commitment.keeper, deal, piece)
        return sampling.path(self.root, seed, self.store.get)


def make_keeper(folder, contents="ab.c."):
    """A keeper with a slot for each letter, holding it, and zeros for each dot; and a file of five chunks."""
    slots = SlotStore(folder / "slots", SIGNER.public_key, CHAIN, SEALING.log_n, SEALING.passes)
    for text in contents:
        slots.append(None if text == "." else chunk(text))
    version = slots.stage()
    slots.settle(version.root)
    (folder / "file").write_bytes(b"".join(bytes((n,)) * 2**20 for n in range(4)) + b"end")
    store = MemoryBlockstore()
    root = add_path(folder / "file", store).root
    return Keeper(slots, store, root, Commitment(SIGNER.public_key, version.root, version.slots))
