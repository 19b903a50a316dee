import trio

from swarm.care.controls import TRAIN, Controls
from swarm.care.finishing import LOOK_SECONDS, Finishing


class Node:
    def __init__(self):
        self.controls = Controls()
        self.owing = {b"task"}
        self.stopped = trio.Event()
        self.finishing = Finishing(self.controls, self.owing, self.stopped.set)


async def test_a_node_that_finishes_goes_on_until_it_owes_nothing(autojump_clock):
    node = Node()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.finishing.run)
        node.finishing.begin()
        await trio.sleep(1000)
        assert not node.stopped.is_set()
        node.owing.clear()
        await trio.sleep(2 * LOOK_SECONDS)
        assert node.stopped.is_set()


async def test_a_node_that_nobody_told_to_finish_does_not_stop(autojump_clock):
    node = Node()
    node.owing.clear()
    with trio.move_on_after(1000):
        await node.finishing.run()
    assert not node.stopped.is_set()


async def test_finishing_can_be_taken_back_and_the_one_who_waits_is_told(autojump_clock):
    node = Node()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.finishing.run)
        node.finishing.begin()
        told = []
        with trio.fail_after(100):
            async with trio.open_nursery() as waiting:
                waiting.start_soon(
                    node.finishing.wait, lambda done, all_: told.append((done, all_))
                )
                await trio.sleep(5)
                node.controls.resume([TRAIN])
        node.owing.clear()
        await trio.sleep(100)
        assert told[0] == (0, 1)
        assert not node.stopped.is_set()
        nursery.cancel_scope.cancel()
