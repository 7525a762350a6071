"""Takes a turn in a process of its own, up to a step, at which it waits to be killed:
`python -m tests.support.control.turn_process URL SESSION STEP`.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from harness.agents import turns
from harness.agents.message import (
    IdempotencyKey,
    IncomingMessage,
    MessageRole,
    MessageState,
    MessageToolCall,
)
from harness.agents.turns import BegunTurn
from harness.frame.records.transaction import Transaction
from harness.frame.runtime.clock import SystemClock, SystemRandomIds
from harness.routing.context import Context
from harness.store.store import Store
from tests.support.site.signing_keys import CONTROL

# Each ends within the unit of work of its name, before it is committed, or after it.
STEPS: Final = tuple(
    f"{when} {unit}"
    for unit in ("begin", "answer", "step", "results", "second answer", "end")
    for when in ("within", "after")
)
OWNER: Final = "here:8085#1"
KEY: Final = IdempotencyKey("k_1", "a", "hash")
SECRET: Final = b"a secret of this process"  # nothing here is audited


class WaitingStore(Store):
    """Says that it is there, and waits, within the n-th unit that writes or after it."""

    step = -1
    _units = 0

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        number = self._units
        self._units += 1
        with super().write() as tx:
            yield tx
            if self.step == 2 * number:
                wait()
        if self.step == 2 * number + 1:
            wait()


def wait() -> None:
    print("here", flush=True)  # noqa: T201 - to who started it
    time.sleep(600)


def main(url: str, session: str, step: str) -> None:
    clock = SystemClock()
    store = WaitingStore(url, secret=SECRET, clock=clock, signatures=CONTROL)
    store.step = STEPS.index(step)
    ctx = Context(store, clock, SystemRandomIds(), None, {})  # type: ignore[arg-type]  # no suites
    incoming = IncomingMessage(MessageRole.USER, "hello")
    begun = turns.begin_turn(ctx, OWNER, session, incoming, KEY)
    assert isinstance(begun, BegunTurn)
    first = turns.begin_answer(ctx, begun.session, model="chat")
    calls = (MessageToolCall("c_1", "look", "{}"),)
    asks = replace(first, state=MessageState.COMPLETE, tool_calls=calls)
    turns.record_step(ctx, begun.session, answer=asks)
    turns.record_step(ctx, begun.session, results=[("c_1", "42")])
    second = turns.begin_answer(ctx, begun.session, model="chat")
    done = replace(second, state=MessageState.COMPLETE, content="It is 42.")
    turns.record_step(ctx, begun.session, answer=done, kept="It is 42.")


if __name__ == "__main__":
    main(*sys.argv[1:])
