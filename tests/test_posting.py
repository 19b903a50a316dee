"""A task that the ledger would not take is refused while nothing of it is published."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from swarm.errors import UsageError
from swarm.operations import Operations
from tests.training.test_spec import classifier


async def test_a_task_too_long_for_the_ledger_is_refused_before_anything_is_published(
    tmp_path,
) -> None:
    nobody = SimpleNamespace(_node=None)  # whatever is asked of it fails otherwise
    with pytest.raises(
        UsageError, match=r"model\.labels: make the task 8,.* the ledger takes 8,192"
    ):
        await Operations.post_task(nobody, classifier(7_900).decode(), tmp_path, lambda *_: None)
