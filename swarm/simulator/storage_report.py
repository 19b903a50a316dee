"""What came of lending and keeping: capacity, audits, strikes, earnings by class of keeper, and time to heal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swarm.ledger.genesis import UNIT
from swarm.ledger.keeping import Verdict
from swarm.ledger.validators import WHOLE
from swarm.simulator.liars import KINDS
from swarm.simulator.measures import quantile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from swarm.ledger.state import LedgerView
    from swarm.simulator.depot import Depot, Ended
    from swarm.simulator.scenario import Scenario

    Json = dict[str, Any]


def summary(depot: Depot, scenario: Scenario, view: LedgerView) -> Json:
    """Everything that was measured of storage.

    Args:
        depot: After the run.
        scenario: That was run.
        view: The newest state.
    """
    kinds = {
        place: one.kind
        for one in scenario.liars
        for place in scenario.places(one)
        if KINDS[one.kind].role == "keeper"
    }
    part = view.params.slash_part
    copies = depot.copies
    return {
        "audits": [_audit(one) for one in depot.audits],
        "classes": _classes(depot, scenario, view, part),
        "struck": [
            found
            for at in range(scenario.lenders)
            if (found := _struck(depot.audits, at, kinds.get(at, "honest"), part))["strikes"]
        ],
        "lost": [_lost(depot, at) for at, kind in sorted(kinds.items()) if kind == "dropper"],
        "deals": {
            "open": len(view.deals()),
            "placed_ms": _times(copies.placed),
            "healed": len(copies.healed),
            "heal_ms": _times(copies.healed),
            "hurt": copies.hurt,
            "gone": copies.gone,
        },
    }


def _audit(one: Ended) -> Json:
    verdicts = [after.verdict for _, after in one.keepers.values()]
    return {
        "audit": one.number,
        "second": one.at_ms / 1000,
        "proven_slots": one.proven,
        "passed": verdicts.count(Verdict.PROVEN),
        "undecided": verdicts.count(Verdict.UNDECIDED),
        "struck": sum(verdict.is_strike for verdict in verdicts),
    }


def _classes(depot: Depot, scenario: Scenario, view: LedgerView, part: int) -> list[Json]:
    found, first = [], 0
    keys = list(depot.lenders)
    for kind in scenario.keepers:
        places = range(first, first + kind.count)
        first += kind.count
        records = [view.keeper(keys[at]) for at in places]
        ended = [one.keepers[at] for one in depot.audits for at in places if at in one.keepers]
        earned = sum(view.account(keys[at]).earned for at in places) / UNIT
        found.append(
            {
                "class": kind.name,
                "keepers": kind.count,
                "slots": kind.count * kind.slots,
                "proven": sum(one.proven for one in records if one is not None and one.in_order),
                "audited": len(ended),
                "passed": sum(after.verdict is Verdict.PROVEN for _, after in ended),
                "strikes": sum(after.verdict.is_strike for _, after in ended),
                "slashed": sum(_taken(one, at, part) for one in depot.audits for at in places)
                / UNIT,
                "earned": earned,
                "earned_each": earned / kind.count,
            }
        )
    return found


def _taken(one: Ended, at: int, part: int) -> int:
    """Units of a keeper's collateral that an audit burned."""
    if at not in one.keepers:
        return 0
    before, after = one.keepers[at]
    is_slashed = after.verdict.is_strike and not after.strikes
    return before.collateral * part // WHOLE if is_slashed else 0


def _struck(audits: Sequence[Ended], at: int, kind: str, part: int) -> Json:
    """What became of one keeper."""
    mine = [one for one in audits if at in one.keepers]
    struck = [one for one in mine if one.keepers[at][1].verdict.is_strike]
    changes = [(one.number, *one.keepers[at]) for one in mine]
    return {
        "keeper": f"k{at}",
        "kind": kind,
        "strikes": len(struck),
        "first": struck[0].number if struck else None,
        "why": sorted({one.keepers[at][1].verdict.name.lower() for one in struck}),
        "slashed": sum(_taken(one, at, part) for one in mine) / UNIT,
        "suspended": _first(
            number for number, before, after in changes if after.suspended > before.suspended
        ),
        "returned": _first(
            number for number, before, after in changes if after.suspended < before.suspended
        ),
        "dismissed": _first(number for number, _, after in changes if not after.slots),
    }


def _first(numbers: Iterator[int]) -> int | None:
    return next(numbers, None)


def _lost(depot: Depot, at: int) -> Json:
    """How often a keeper that lost slots was caught, and how often it should have been."""
    expected, audits, strikes, undecided, first = 0.0, 0, 0, 0, None
    lost = slots = 0
    for one in depot.audits:
        if at in one.keepers and one.lost.get(at):
            before, after = one.keepers[at]
            lost, slots = one.lost[at], before.slots
            expected += depot.catching(lost, slots)
            audits += 1
            undecided += after.verdict is Verdict.UNDECIDED
            if after.verdict.is_strike:
                strikes += 1
                first = first or one.number
    each = depot.catching(lost, slots) if slots else 0.0
    day = depot.storage.audits_per_day
    return {
        "keeper": f"k{at}",
        "slots": slots,
        "lost": lost,
        "audits": audits,
        "strikes": strikes,
        "undecided": undecided,
        "expected": round(expected, 3),
        "chance_each": round(each, 6),
        "chance_day": round(1 - (1 - each) ** day, 9),
        "first": first,
    }


def _times(values: Sequence[int]) -> Json | None:
    if not values:
        return None
    return {"p50": quantile(values, 50), "most": max(values)}


LENT = ("CLASS", "KEEPERS", "SLOTS", "PROVEN", "PASSED", "STRIKES", "SLASHED", "EARNED", "EACH")
STRUCK = ("KEEPER", "KIND", "STRIKES", "WHY", "SUSPENDED", "RETURNED", "DISMISSED")


def lent(found: Json) -> list[tuple[str, ...]]:
    """A row a class of keepers."""
    return [
        (
            one["class"],
            str(one["keepers"]),
            f"{one['slots']:,}",
            f"{one['proven']:,}",
            f"{one['passed']:,} of {one['audited']:,}",
            f"{one['strikes']:,}",
            f"{one['slashed']:,.3f}",
            f"{one['earned']:,.3f}",
            f"{one['earned_each']:,.3f}",
        )
        for one in found["classes"]
    ]


def struck(found: Json) -> list[tuple[str, ...]]:
    """A row a keeper that was struck; of what happened to it, the audits in which it did."""
    return [
        (
            one["keeper"],
            one["kind"],
            str(one["strikes"]),
            ", ".join(why.replace("_", " ") for why in one["why"]),
            *(str(one[what] or "-") for what in ("suspended", "returned", "dismissed")),
        )
        for one in found["struck"]
    ]


def lines(found: Json) -> list[tuple[str, str]]:
    """The summary in names and values."""
    audits, deals = found["audits"], found["deals"]
    slots = sum(one["slots"] for one in found["classes"])
    most = max((one["proven_slots"] for one in audits), default=0)
    last = audits[-1]["proven_slots"] if audits else 0
    passed, undecided, strikes = (
        sum(one[what] for one in audits) for what in ("passed", "undecided", "struck")
    )
    rows = [
        ("capacity", f"{last:,} of {slots:,} slots proven and in good standing after the last audit, {most:,} at most"),
        ("audits", f"{len(audits):,}: {passed:,} passed, {strikes:,} strikes, {undecided:,} undecided"),
    ]  # fmt: skip
    if deals["placed_ms"] is not None:
        rows.append(("all copies made", f"{_told(deals['placed_ms'])} after the deal"))
        rows.append(("copies healed", f"{deals['healed']:,}{_after(deals['heal_ms'])}; {deals['hurt']:,} pieces lack one at the end, {deals['gone']:,} times none was left"))  # fmt: skip
    rows += [("lost slots", lost(one)) for one in found["lost"]]
    return rows


def lost(one: Json) -> str:
    """One that lost slots: what the formula gives and what was seen."""
    return (
        f"{one['keeper']} lost {one['lost']:,} of {one['slots']:,}: {one['strikes']:,} strikes{_silent(one)}"
        f" in {one['audits']:,} audits where 1 - (1 - f)^k gives {one['expected']:,.1f};"
        f" found within a day by {100 * one['chance_day']:.9g} %"
    )


def _silent(one: Json) -> str:
    return f" and {one['undecided']:,} undecided" if one["undecided"] else ""


def together(found: Sequence[Json]) -> str | None:
    """Of several runs, all that lost slots; None if nobody did."""
    every = [one for run in found for one in run.get("storage", {}).get("lost", ())]
    if not every:
        return None
    strikes, audits = (sum(one[what] for one in every) for what in ("strikes", "audits"))
    expected = sum(one["expected"] for one in every)
    return f"lost slots: {strikes:,} strikes in {audits:,} audits where 1 - (1 - f)^k gives {expected:,.1f}"


def _told(times: Json) -> str:
    return f"{times['p50'] / 1000:,.1f} s in the median, {times['most'] / 1000:,.1f} s at most"


def _after(times: Json | None) -> str:
    return "" if times is None else f", {_told(times)} after one was lost"
