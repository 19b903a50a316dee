"""The ledger once more, as plainly as can be: dicts and sums, written from the protocol's text and not from its code.

It knows accounts, stake, slashing, jail, names, datasets, commits, escrows and emission, with the parameters below;
rounds stay in TRAIN and no audit begins. A method returns whether the transaction may count.
"""

from __future__ import annotations

PARAMS = {
    "epoch_length": 4,
    "min_bond": 100,
    "worker_bond": 50,
    "unbonding": 5,
    "base_fee_floor": 1,
    "jail_blocks": 6,
    "blocks_per_day": 50,
    "emission_per_day": 100,
    "max_validators": 5,
    "audit_blocks": 1_000_000,
    "min_keep_price": 90,
    "keep_fee": 700,
    "keep_burn": 3_000,
}
POOL = 60 * 10**16


class Model:
    """What the ledger should hold."""

    def __init__(self, balances: dict[bytes, int], stakes: dict[bytes, int], keyed: set) -> None:
        people = set(balances) | set(stakes)
        self.balance = {key: balances.get(key, 0) for key in people}
        self.stake = {key: stakes.get(key, 0) for key in people}
        self.bond = dict.fromkeys(people, 0)
        self.outgoing = {key: [] for key in people}  # [amount, height it began]
        self.keyed = set(keyed)  # with a VRF key
        self.worker = {}  # key -> height at which it registered
        self.jail = {}
        self.sets = {0: dict(stakes), 1: dict(stakes)}
        self.slashed = []  # [key, epoch, offence, weight of it, of all, at stake, taken for the first]
        self.punished = set()
        self.names = {}
        self.datasets = set()
        self.tasks = {}  # id -> [owner, escrow, committed, height it began]
        self.deals = {}
        self.height = 0
        self.burned = 0
        self.pool = POOL
        self.emitted = 0
        self.aside = dict.fromkeys(("training", "small", "scoring", "storage"), 0)
        self.treasury = 0
        self.genesis = sum(balances.values()) + sum(stakes.values())

    @property
    def held(self) -> int:
        """Every unit there is."""
        outgoing = sum(amount for all_ in self.outgoing.values() for amount, _ in all_)
        escrow = sum(one[1] for one in self.tasks.values())
        escrow += sum(one[1] for one in self.deals.values())
        plain = sum(self.balance.values()) + sum(self.stake.values()) + sum(self.bond.values())
        return plain + outgoing + escrow + self.treasury

    def begin(self) -> None:
        self.height += 1

    def pay_fee(self, who, burned, tip, leader) -> None:
        self.balance[who] -= burned + tip
        self.burned += burned
        self.tips = getattr(self, "tips", 0) + tip

    def end(self, leader) -> None:
        amount = self.pool * 100 // (10_000 * 50)
        for name, percent in (("training", 20), ("small", 20), ("scoring", 10), ("storage", 20)):
            share = amount * percent // 100
            part = max(0, min(share, 50 * share - self.aside[name]))
            self.aside[name] += part
            self.pool -= part
        paid, tax = amount * 10 // 100, amount * 5 // 100
        self.pool -= paid + tax
        self.emitted += paid + tax
        self.treasury += tax
        self.balance[leader] += paid + getattr(self, "tips", 0)
        self.tips = 0
        if self.height % 4 == 0:
            epoch = self.height // 4 - 1
            able = [
                key
                for key in self.stake
                if key in self.keyed and self.stake[key] >= 100 and key not in self.jail
            ]
            best = sorted(able, key=lambda key: (-self.stake[key], key))[:5]
            self.sets[epoch + 2] = {key: self.stake[key] for key in best} or self.sets[epoch + 1]

    def transfer(self, who, to, amount) -> bool:
        if self.balance[who] < amount:
            return False
        self.balance[who] -= amount
        self.balance[to] += amount
        return True

    def put_stake(self, who, amount) -> bool:
        if self.balance[who] < amount or self.stake[who] + amount < 100:
            return False
        self.balance[who] -= amount
        self.stake[who] += amount
        return True

    def unstake(self, who, amount) -> bool:
        left = self.stake[who] - amount
        if left < 0 or 0 < left < 100 or len(self.outgoing[who]) >= 32:
            return False
        self.stake[who] = left
        self.outgoing[who].append([amount, self.height])
        return True

    def withdraw(self, who) -> bool:
        due = [one for one in self.outgoing[who] if one[1] + 12 <= self.height]  # three epochs
        self.outgoing[who] = [one for one in self.outgoing[who] if one not in due]
        self.balance[who] += sum(amount for amount, _ in due)
        return bool(due)

    def register(self, who, worker) -> bool:
        if worker and who not in self.worker:
            if self.balance[who] < 50:
                return False
            self.balance[who] -= 50
            self.bond[who] = 50
            self.worker[who] = self.height
        elif not worker and who in self.worker:
            if len(self.outgoing[who]) >= 32:
                return False
            self.outgoing[who].append([50, self.height])
            self.bond[who] = 0
            del self.worker[who]
        self.keyed.add(who)
        return True

    def evidence(self, by, accused, epoch, view) -> bool:
        now = (self.height - 1) // 4
        if (
            epoch > now
            or accused not in self.sets[epoch]
            or (accused, epoch, view) in self.punished
        ):
            return False
        before = self._at_stake(accused, epoch)
        if not before:
            return False
        self.slashed = [one for one in self.slashed if one[1] >= now - 1]
        taken = 0
        if accused in [one[0] for one in self.slashed]:
            taken += self._take(accused, epoch, before // 10)
        else:
            weights = self.sets[epoch]
            share = weights[accused] * 10_000 // sum(weights.values())
            self.slashed.append([accused, now, epoch, share, before, 0])
        part = min(10_000, 1_000 + 3 * sum(one[3] for one in self.slashed))
        for one in self.slashed:
            owed = one[4] * part // 10_000
            if owed > one[5]:
                taken += self._take(one[0], one[2], owed - one[5])
                one[5] = owed
        self.punished.add((accused, epoch, view))
        self.jail[accused] = self.height + 6
        self.balance[by] += taken // 10
        self.burned += taken - taken // 10
        return True

    def _places(self, who, epoch) -> list:
        """What of an account voted in an epoch, or was bonded after it: stake first."""
        return [one for one in self.outgoing[who] if epoch <= (one[1] - 1) // 4 + 1]

    def _at_stake(self, who, epoch) -> int:
        return self.stake[who] + sum(one[0] for one in self._places(who, epoch))

    def _take(self, who, epoch, owed) -> int:
        total = self._at_stake(who, epoch)
        owed = min(owed, total)
        amounts = [self.stake[who], *[one[0] for one in self._places(who, epoch)]]
        parts = [owed * one // total if total else 0 for one in amounts]
        rest = sorted(
            range(len(amounts)), key=lambda at: (-(owed * amounts[at] % total if total else 0), at)
        )
        for at in rest[: owed - sum(parts)]:
            parts[at] += 1
        self.stake[who] -= parts[0]
        for one, part in zip(self._places(who, epoch), parts[1:], strict=True):
            one[0] -= part
        return owed

    def unjail(self, who) -> bool:
        if self.jail.get(who, 10**9) > self.height:
            return False
        del self.jail[who]
        return True

    def take_name(self, who, name, root) -> bool:
        if name in self.names:
            return False
        self.names[name] = [who, root, 0, b""]
        return True

    def update_name(self, who, name, root, version, previous) -> bool:
        entry = self.names.get(name)
        if entry is None or entry[0] != who or entry[3]:
            return False
        if version != entry[2] + 1 or previous != entry[1]:
            return False
        self.names[name] = [who, root, version, b""]
        return True

    def publish(self, root) -> bool:
        fresh = root not in self.datasets
        self.datasets.add(root)
        return fresh

    def post(self, who, task, name, base, budget) -> bool:
        entry = self.names.get(name)
        if self.balance[who] < budget or (entry and (entry[0] != who or entry[3])):
            return False
        version = 0 if entry is None else entry[2] + (entry[1] != base)
        self.names[name] = [who, base, version, task]
        self.balance[who] -= budget
        self.tasks[task] = [who, budget, set(), self.height]
        return True

    def commit(self, who, task) -> bool:
        if task not in self.tasks or who not in self.worker or who in self.tasks[task][2]:
            return False
        if self.worker[who] > self.tasks[task][3]:
            return False
        self.tasks[task][2].add(who)
        return True

    def keep(self, who, deal, pieces, replicas, audits, price) -> bool:
        cost = pieces * replicas * audits * price
        fee = (cost * 700 + 9_999) // 10_000
        if price < 90 or self.balance[who] < cost + fee:
            return False
        self.balance[who] -= cost + fee
        self.burned += fee * 3 // 10
        self.treasury += fee - fee * 3 // 10
        self.deals[deal] = [who, cost, False]
        return True

    def end_keep(self, who, deal) -> bool:
        found = self.deals.get(deal)
        if found is None or found[0] != who or found[2]:
            return False
        found[2] = True
        return True
