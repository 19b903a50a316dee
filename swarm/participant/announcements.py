"""Updates announced by gossip, so that validators fetch them before the chain shows their reveal.

    message = canonical [version, task 32, round, worker 32, root 36, salt 32]

The root and salt must open the worker's commitment on the ledger: nobody can make a validator fetch
what no worker committed to. Only a validator of the epoch fetches; each root once at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from protocols import signing
from protocols.exchange.errors import ExchangeError
from storage import canonical, cid
from storage.errors import StorageError
from swarm.ledger.transactions import commit_hash
from swarm.training.spec import max_update_bytes, parse_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocols.transport import Transport
    from storage.cid import Cid
    from swarm.ledger.state import LedgerView
    from swarm.shelf import Shelf

_log = structlog.get_logger("swarm.announcements")

_VERSION = 1
_MAX_BYTES = 256
MAX_FETCHES = 8
"""Announced updates that are fetched at once."""
FETCH_SECONDS = 30.0


class Announcements:
    """Both ends of the topic `/swarm/<chain id>/updates`."""

    def __init__(
        self,
        transport: Transport,
        topic: str,
        account: bytes,
        view: Callable[[], LedgerView],
        shelf: Shelf,
    ) -> None:
        self._transport = transport
        self._topic = topic
        self._account = account
        self._view = view
        self._shelf = shelf
        self._fetching: set[Cid] = set()

    async def tell(self, task: bytes, round_: int, root: Cid, salt: bytes) -> None:
        """Announce this node's own update."""
        body = canonical.encode([_VERSION, task, round_, self._account, root, salt])
        await self._transport.publish(self._topic, body)

    async def run(self) -> None:
        """Fetch what others announce; runs until cancelled."""
        async with (
            trio.open_nursery() as nursery,
            self._transport.subscribe(self._topic) as messages,
        ):
            async for _, body in messages:
                wanted = self._read(body)
                if wanted is None or len(self._fetching) >= MAX_FETCHES:
                    continue
                worker, root, most = wanted
                if root not in self._fetching:
                    self._fetching.add(root)
                    nursery.start_soon(self._fetch, worker, root, most)

    def _read(self, body: bytes) -> tuple[bytes, Cid, int] | None:
        """Worker, root and most bytes of an announcement that opens a commitment; None for any other."""
        try:
            version, task, number, worker, root, salt = canonical.decode(body, max_bytes=_MAX_BYTES)
            if version != _VERSION or type(task) is not bytes or type(worker) is not bytes:
                return None
            view = self._view()
            if not view.validators(view.epoch).weight_of(self._account):
                return None
            round_, state = view.round(task), view.task(task)
            if (
                round_ is None
                or state is None
                or round_.number != number
                or worker not in round_.commits
            ):
                return None
            checked = cid.from_bytes(root)
            opened = commit_hash(checked, worker, salt)
            most = max_update_bytes(parse_spec(state.spec))
        except (StorageError, ValueError, TypeError):
            return None
        return (worker, checked, most) if opened == round_.commits[worker] else None

    async def _fetch(self, worker: bytes, root: Cid, most: int) -> None:
        try:
            with trio.move_on_after(FETCH_SECONDS):
                await self._shelf.take(
                    root, [signing.peer_id(worker)], max_bytes=most, is_file=True
                )
        except (StorageError, ExchangeError, OSError) as error:
            _log.info("announced.missing", root=cid.text(root), error=str(error))
        except Exception:  # noqa: BLE001 - whatever a stranger's content does, the node goes on
            _log.exception("announced.broken", root=cid.text(root))
        finally:
            self._fetching.discard(root)
