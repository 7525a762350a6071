"""Requests that come at once start a few in each turn of the event loop, in their order."""

import asyncio
from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from router.server.start_queue import STARTS_IN_A_TURN, StartQueue


class NotedRequest:
    """Notes in which turn it starts. fault: raised by its start."""

    def __init__(
        self, number: int, clock: "TurnClock", *, gone: bool = False, fault: bool = False
    ) -> None:
        self.gone = gone
        self._number, self._clock, self._fault = number, clock, fault

    def start(self) -> None:
        self._clock.started.append((self._clock.turn, self._number))
        if self._fault:
            raise RuntimeError("its start fails")


class TurnClock:
    def __init__(self) -> None:
        self.turn = 0
        self.started: list[tuple[int, int]] = []
        self.faults: list[object] = []

    async def run(self, bursts: list[list[NotedRequest]]) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.faults.append(context["exception"]))
        queue = StartQueue()
        for burst in bursts:
            for request in burst:
                if queue.takes():
                    request.start()
                else:
                    queue.wait(request, loop)
            await self._next_turn()
        for _ in range(sum(map(len, bursts)) + 2):
            await self._next_turn()

    async def _next_turn(self) -> None:
        await asyncio.sleep(0)
        self.turn += 1


@given(st.lists(st.integers(0, 30), max_size=6))
def test_each_turn_starts_a_few_and_all_start_once_in_each_burst_s_order(
    sizes: list[int],
) -> None:
    clock = TurnClock()
    bursts: list[list[NotedRequest]] = []
    for size in sizes:
        first = sum(map(len, bursts))
        bursts.append([NotedRequest(first + number, clock) for number in range(size)])
    asyncio.run(clock.run(bursts))

    assert sorted(number for _, number in clock.started) == list(range(sum(sizes)))
    per_turn = [len(list(turn)) for _, turn in groupby(clock.started, key=lambda pair: pair[0])]
    # Those that start at once, and those that wait.
    assert all(count <= 2 * STARTS_IN_A_TURN for count in per_turn)


def test_a_request_whose_client_has_gone_does_not_start() -> None:
    clock = TurnClock()
    burst = [NotedRequest(number, clock) for number in range(STARTS_IN_A_TURN)]
    burst.append(NotedRequest(98, clock, gone=True))
    burst.append(NotedRequest(99, clock))
    asyncio.run(clock.run([burst]))

    assert [number for _, number in clock.started] == [*range(STARTS_IN_A_TURN), 99]


def test_a_fault_in_one_start_holds_up_no_other() -> None:
    clock = TurnClock()
    burst = [NotedRequest(number, clock) for number in range(STARTS_IN_A_TURN)]
    burst.append(NotedRequest(98, clock, fault=True))
    burst += [NotedRequest(100 + number, clock) for number in range(2 * STARTS_IN_A_TURN)]
    asyncio.run(clock.run([burst]))

    assert len(clock.started) == len(burst)
    assert [str(fault) for fault in clock.faults] == ["its start fails"]
