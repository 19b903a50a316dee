"""The route of receipts, `receipts` of the control API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swarm.receipts.book import MAX_KEPT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from swarm.control.api import NodeApi
    from swarm.control.fields import Fields

    Question = Callable[[NodeApi, Fields], Awaitable[Any]]


async def _receipts(node: NodeApi, fields: Fields) -> Any:  # noqa: ANN401 - JSON
    task = fields.optional_text("task")
    limit = fields.integer("limit", MAX_KEPT, 1, MAX_KEPT)
    found = await node.receipts.read()
    if task is not None:
        found = [one for one in found if task in (one.get("task"), one.get("name"))]
    return found[-limit:]


QUESTIONS: dict[str, Question] = {"receipts": _receipts}
