"""A task that the ledger would not take is refused while nothing of it is published."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from swarm.errors import RefusedError, UsageError
from swarm.ledger.payloads import Phases, TaskPost
from swarm.operations import Operations
from swarm.work import Work
from tests.chain.world import ALICE, VALIDATOR, open_chain
from tests.ledger.world import BASE
from tests.training.test_spec import SMALL, classifier


async def test_a_task_too_long_for_the_ledger_is_refused_before_anything_is_published(
    tmp_path,
) -> None:
    nobody = SimpleNamespace(_node=None)  # whatever is asked of it fails otherwise
    with pytest.raises(
        UsageError, match=r"model\.labels: make the task 8,.* the ledger takes 8,192"
    ):
        await Work.post_task(nobody, classifier(7_900).decode(), tmp_path, lambda *_: None)


@pytest.mark.parametrize("act", ["post", "point"])
async def test_a_name_that_another_task_writes_or_another_account_owns_is_refused_before_anything_is_made(
    tmp_path, act
) -> None:
    with open_chain(tmp_path / "ledger") as alone:
        phases = Phases(1, 1, 2, 1, 1)
        open_task = TaskPost("gpt", "lm", b"", BASE, BASE, BASE, 1, 10**9, phases, 10)
        assert alone.run(ALICE, open_task) == ""

        def bound(who):
            node = SimpleNamespace(ledger=alone.ledger, signer=who, wallet=None)  # which cannot pay
            return SimpleNamespace(_node=node)

        async def ask(who):
            if act == "post":
                text = SMALL.decode().replace('"t"', '"gpt"')
                await Work.post_task(bound(who), text, tmp_path, lambda *_: None)
            else:
                made = SimpleNamespace(root=b"another")
                await Operations._point(bound(who), "gpt", made)

        with pytest.raises(RefusedError, match="an open task writes 'gpt'") as caught:
            await ask(ALICE)
        assert "swarm tasks" in caught.value.hint
        with pytest.raises(RefusedError, match=f"belongs to {ALICE.peer_id}"):
            await ask(VALIDATOR)
