"""Makes `home-0.1.0.tar.gz`: the data folder of a node of this version, as later versions have to open it.

Run by hand, once a release: `python -m tests.vectors.home_made`. A pinned folder is never made anew: a later layout gets a
file of its own beside it, and `tests/process/test_upgrade.py` opens them all.
Sealed slots are left out, since a megabyte of them does not pack; `sealing.json` pins their bytes.
"""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
from pathlib import Path

from swarm.identity import Identity
from swarm.ledger.genesis import UNIT, Params
from swarm.receipts.book import FILE as RECEIPTS
from swarm.receipts.book import Book
from swarm.receipts.receipt import Receipt
from tests.process.cluster import Cluster

HERE = Path(__file__).parent
PARAMS = Params(
    block_interval_ms=250,
    delta_ms=1_000,
    epoch_length=20,
    min_bond=100 * UNIT,
    blocks_per_day=345_600,
    seal_log_n=4,
    seal_passes=2,
    min_keep_price=5,
)
LEFT_OUT = ("shelf", "logs", "snapshots", "node.log", "node.lock", "lock.mdb", "lock", "page.token")
HEIGHT = 45
"""Past the second epoch, so that validators were handed over."""
TASK = """
[task]
name = "tiny"
kind = "lm"
rounds = 2
budget = "10"

[data]
dataset = "{text}"
pool = "{text}"

[model]
layers = 1
heads = 1
width = 16
context = 16
"""


def make(folder: Path) -> dict[str, object]:
    """Run a network of one node for a while; what has to be found in its folder."""
    cluster = Cluster(folder, 1, PARAMS, ("--no-train", "--no-page", "--no-mdns"))
    (node,) = cluster.nodes
    try:
        text = folder / "text"
        text.mkdir()
        line = "it was the best of times, it was the worst of times, {0} times\n"
        (text / "lines.txt").write_text("".join(line.format(number) for number in range(900)))
        root = node.ask(lambda client: client.publish(text, "text"))["cid"]
        node.ask(lambda client: client.pin(root, "mine"))
        node.ask(lambda client: client.post_task(TASK.format(text=root), folder))
        node.ask(lambda client: client.dataset("init", name="poems", folder=text))
        made = node.ask(lambda client: client.dataset("commit", folder=text, message="first"))
        deal = node.ask(
            lambda client: client.keep("post", content=root, replicas=1, audits=3, price=7)
        )
        node.ask(lambda client: client.pause("seal", None))
        node.ask(lambda client: client.limit("upload", "1MB/s"))
        cluster.wait_for_height(0, HEIGHT, 120)
        block = node.ask(lambda client: client.block(HEIGHT))
        account = node.ask(lambda client: client.balance())
        assert node.stop() == 0
    finally:
        cluster.end()
    receipt = Receipt(
        *(cluster.chain_id, account["account"], "00" * 32, "tiny", 1, 1, 1, "update", root, 5),
        *("accepted", "", 7, 9, "00", 9, block["id"], "00" * 32),
    )
    signer = Identity.load_or_create(node.home).signer
    Book(node.home / RECEIPTS).add([receipt.sign(signer)])
    return {
        "chain_id": cluster.chain_id,
        "account": account["account"],
        "root": root,
        "commit": made["commit"],
        "deal": deal["deal"],
        "height": HEIGHT,
        "block": block["id"],
    }


def main(version: str) -> None:
    """Write the folder and what it holds."""
    with tempfile.TemporaryDirectory() as folder:
        facts = make(Path(folder))
        home = Path(folder) / "node-1"

        def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
            name = Path(entry.name).name
            return None if name in LEFT_OUT or entry.name.endswith(".sock") else entry

        with tarfile.open(HERE / f"home-{version}.tar.gz", "w:gz") as archive:
            archive.add(home, "home", filter=kept)
    (HERE / f"home-{version}.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
