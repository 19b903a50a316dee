"""Who takes part in rounds: `participant.core` decides, and the shell around it works in virtual time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from swarm.participant import core
from swarm.participant.memory import Merged, RoundMemory, Scores

if TYPE_CHECKING:
    from swarm.ledger.state import LedgerView, RoundState
    from swarm.simulator.accounts import Account
    from swarm.simulator.chance import Chance
    from swarm.simulator.events import Schedule
    from swarm.simulator.liars import Behaviour
    from swarm.simulator.scenario import Hardware, Training
    from swarm.simulator.town import Town
    from swarm.simulator.trainers import Model

RESEND_BLOCKS: Final = 6
PREFETCH_MS: Final = 100


class Member:
    """A worker, or a validator as it scores.

    Args:
        town: The ledger's world.
        account: Which acts.
        behaviour: How it lies, if it does.
        model: What training would find.
        training: The task.
        hardware: Of a worker; None for who only scores.
        chance: For salts.
    """

    def __init__(
        self,
        town: Town,
        account: Account,
        behaviour: Behaviour,
        model: Model,
        training: Training,
        hardware: Hardware | None,
        chance: Chance,
    ) -> None:
        self.account = account
        self.hardware = hardware
        self._town = town
        self._behaviour = behaviour
        self._model = model
        self._training = training
        self._chance = chance
        self._schedule: Schedule = town.world.schedule
        self._memory = RoundMemory(b"", 0, 0)
        self._sent: dict[type, int] = {}
        self._stage: tuple[int, int, int] | None = None
        self._busy: tuple[int, int] | None = None
        self._looking = False

    def look_after(self, delay: int) -> None:
        """Look at the ledger once more, a while from now."""
        if not self._looking:
            self._looking = True
            self._schedule.after(delay, self._look)

    def _look(self) -> None:
        self._looking = False
        if self.account.home.replica is None:
            return
        view = self._town.ledger(self.account.home).view()
        self.account.resend(view.height)
        for task in view.open_tasks():
            round_ = view.round(task)
            if round_ is not None:
                self._drive(view, round_)

    def _drive(self, view: LedgerView, round_: RoundState) -> None:
        self._remember(round_)
        while True:
            step = core.decide(round_, self._me(view, round_), self._memory)
            if isinstance(step, core.Prefetch):
                fetched = self._memory.fetched | set(step.roots)
                self._memory = replace(self._memory, fetched=fetched)
            elif step is None or isinstance(step, core.Send):
                break
            else:
                self._work(step, round_)
                return
        if step is not None:
            step = self._behaviour.says(step, round_)
        if step is None:
            key = self.account.key
            step = self._behaviour.volunteers(round_, self._memory, key)
        if step is not None:
            self._send(step, round_, view.height)

    def _remember(self, round_: RoundState) -> None:
        key = (round_.task, round_.number, round_.attempt)
        if self._memory.key != key:
            before, self._memory = self._memory, RoundMemory(*key)
            if before.key[:2] == key[:2]:  # the commitment may be on its way into this attempt
                self._memory = replace(self._memory, salt=before.salt, update=before.update)
        stage = (round_.number, round_.attempt, int(round_.phase))
        if self._stage != stage:
            self._stage = stage
            self._sent.clear()

    def _me(self, view: LedgerView, round_: RoundState) -> core.Me:
        key = self.account.key
        epoch = round_.score_epoch if round_.score_epoch >= 0 else view.epoch
        return core.Me(
            key,
            self.hardware is not None and core.may_train(round_, view.workers().get(key)),
            view.validators(epoch).weight_of(key) > 0,
        )

    def _send(self, step: core.Send, round_: RoundState, height: int) -> None:
        if height - self._sent.get(type(step), -RESEND_BLOCKS) >= RESEND_BLOCKS and (
            self.account.submit(core.payload(step, round_, self.account.key))
        ):
            self._sent[type(step)] = height

    # Work

    def _work(self, step: core.Work, round_: RoundState) -> None:
        """Begin, unless it is under way: it is done after a while, if its phase is not over by then."""
        stage = (round_.number, int(round_.phase))
        if self._busy == stage:
            return
        self._busy = stage
        if isinstance(step, core.Train) and self.hardware is not None:
            took = self._model.train_ms(self.account.key, self.hardware, round_)
        else:
            took = self._training.score_ms * max(1, len(round_.submissions))
        self._schedule.after(PREFETCH_MS + took, self._done, step, stage)

    def _done(self, step: core.Work, stage: tuple[int, int]) -> None:
        if self._busy != stage:
            return
        self._busy = None
        if self.account.home.replica is None:
            return
        view = self._town.ledger(self.account.home).view()
        round_ = view.round(self._memory.task)
        if round_ is None or (round_.number, int(round_.phase)) != stage:
            return
        self._remember(round_)
        key, memory = self.account.key, self._memory
        salt = self._chance.bytes(32)
        if isinstance(step, core.Train) and self.hardware is not None:
            update = self._model.train(key, self.hardware, round_)
            self._memory = replace(memory, salt=salt, update=update)
        elif isinstance(step, core.Score):
            base_loss, found = self._model.measure(key, round_)
            said = self._behaviour.scores(found, round_)
            self._memory = replace(memory, scores=Scores(base_loss, said, salt))
        elif isinstance(step, core.Merge):
            self._memory = replace(memory, merged=Merged(*self._model.merge(round_)))
        self._drive(view, round_)
