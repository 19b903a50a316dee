"""A node's door to the chain over a real ledger that makes a block for each transaction."""

from __future__ import annotations

from contextlib import contextmanager

from swarm.chain.operations import Chain
from swarm.wallet import Wallet
from tests.ledger.alone import ALICE, VALIDATOR, open_alone

EPOCH = 4


async def nothing(_progress) -> None:
    """What a node that holds all blocks does to catch up."""


def silent(*_) -> None:
    """Progress that nobody watches."""


def door(alone, who=ALICE, *, validates=False, wallet=None) -> Chain:
    wallet = wallet or Wallet(who, alone.ledger, alone.heights, lambda _data: alone.grow())
    return Chain(
        who,
        alone.ledger,
        wallet,
        alone.heights,
        validates=validates,
        caught_up=nothing,
        gossip=alone.gossiped.append,
    )


class Asked:
    """The chain as `gathering.Source`, without a socket; counts what is asked."""

    def __init__(self, alone) -> None:
        self.ledger = alone.ledger
        self.asked = 0

    def headers(self, first, count):
        self.asked += 1
        last = min(first + count - 1, self.ledger.finalized_height())
        return [self.ledger.block(at).header_bytes.hex() for at in range(first, last + 1)]

    def handoffs(self, first, count):
        self.asked += 1
        found = [self.ledger.handoff(epoch) for epoch in range(first, first + count)]
        return [one.hex() for one in found if one is not None]

    def validators(self, epoch=None):
        return {"first": epoch * EPOCH + 1, "last": (epoch + 1) * EPOCH}


@contextmanager
def open_chain(folder, **params):
    with open_alone(folder, epoch_length=EPOCH, **params) as alone:
        alone.gossiped = []
        yield alone


__all__ = ["ALICE", "EPOCH", "VALIDATOR", "Asked", "door", "open_chain", "silent"]
