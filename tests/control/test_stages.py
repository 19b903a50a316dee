"""Progress of an operation: of each stage the newest is told, and its end never lost."""

import json

import trio

from swarm.control.operation import Operation


async def test_the_end_of_a_stage_is_told_though_the_next_begins_at_once(autojump_clock):
    async def work(progress):
        progress("fetch", 1, 2)
        await trio.sleep(0.01)
        progress("fetch", 2, 2)
        progress("write", 0, 2)
        await trio.sleep(1)
        return "done"

    sent = []

    async def send(message):
        sent.append(message.get("body", b""))

    await Operation(work)({}, trio.sleep_forever, send)
    events = [json.loads(line) for line in b"".join(sent).splitlines()]
    told = [(one["stage"], one["done"]) for one in events if one["event"] == "progress"]
    assert told == [("fetch", 1), ("fetch", 2), ("write", 0)]
    assert events[-1]["value"] == "done"
