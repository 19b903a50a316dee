"""How fast the ledger takes payments: `python -m bench.ledger [transfers] [accounts]`.

One block of transfers on a store of many accounts: decode, verify the signature, execute, root, durable commit.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from bench.machine import describe
from protocols.signing import Signer
from storage import canonical
from storage.state_store import StateStore
from swarm.ledger.execute import Context, execute_block, genesis_changes
from swarm.ledger.genesis import UNIT, Genesis, GenesisValidator, Params
from swarm.ledger.state import Account, account_key
from swarm.ledger.transactions import Transfer, decode, sign
from swarm.ledger.vrf import VrfKey


def main(transfers: int = 1_000, accounts: int = 100_000) -> None:
    """Time the parts of one block and print them."""
    signers = [Signer(hashlib.sha256(b"%d" % at).digest()) for at in range(min(transfers, 1_000))]
    validator = GenesisValidator(signers[0].public_key, VrfKey.of(b"v" * 32).public_key, UNIT)
    genesis = Genesis.create("bench", 0, [validator], params=Params(min_bond=1))
    changes = genesis_changes(genesis)
    for at in range(accounts):
        key = signers[at].public_key if at < len(signers) else hashlib.sha256(b"a%d" % at).digest()
        account = Account(key, balance=1_000 * UNIT)
        changes[account_key(key)] = canonical.encode(account.pack())
    with tempfile.TemporaryDirectory() as folder:
        store = StateStore(Path(folder))
        store.commit(store.view().layer(changes), b"", b"", 0)
        data = [
            sign(
                signers[at % len(signers)],
                genesis.chain_id,
                at // len(signers),
                Transfer(hashlib.sha256(b"a%d" % (at * 7 % accounts)).digest(), 1),
                valid_until=9,
            )
            for at in range(transfers)
        ]
        times = [time.perf_counter()]
        decoded = [decode(one) for one in data]
        times.append(time.perf_counter())
        context = Context(1, 1, signers[0].public_key, b"b" * 32)
        block, receipts = execute_block(store.view(), context, decoded)
        times.append(time.perf_counter())
        layer = store.view().layer(block)
        times.append(time.perf_counter())
        store.commit(layer, b"".join(data), b"", 1)
        times.append(time.perf_counter())
        store.close()
    if any(one.error for one in receipts):
        raise SystemExit(receipts[0].error)
    print(describe())
    parts = [later - earlier for earlier, later in pairwise(times)]
    names = ("decode and verify", "execute", "root", "durable commit")
    for name, seconds in zip(names, parts, strict=True):
        print(f"{name:<18} {1000 * seconds:8.1f} ms")
    total = times[-1] - times[0]
    print(f"{transfers:,} transfers over {accounts:,} accounts: {transfers / total:,.0f} a second")


if __name__ == "__main__":
    main(*(int(one) for one in sys.argv[1:]))
