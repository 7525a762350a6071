"""The rate gate delays calls, so that a machine's eval workers keep a provider's limits.

It also finds the speed at which each target answers well. The limits apply to both models of a
comparison, to judges, and to pauses that a provider asks for.

Users of the same account come first, on all hosts: each call reads the reports of the routers.

The rules of speeds, rates and users are pure and in other modules (`note_answer`,
`admit_request`, `permit_calls`); this module shares their states between processes.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import Final

from evals.runner.shared_slots import JITTER, Slots
from harness.evals.account_meter import AccountMeter, StoredLoads
from harness.frame.errors import StoreUnavailable
from harness.frame.people.limits import (
    EvalLimits,
    RateDecision,
    RateLimit,
    RateState,
    admit_request,
    settle_request,
)
from harness.frame.plain_data import short_hash
from harness.frame.ports import RateBook
from harness.routing.reliability.latency import (
    MOST_CALLS,
    CallSpeed,
    EndedCall,
    current_speed,
    note_answer,
    note_overload,
)
from harness.routing.reliability.users_first import LONGEST_GAP_S, Permit

# An estimate for English; the provider's count corrects it afterwards.
BYTES_PER_TOKEN: Final = 4
LONGEST_NAP_S: Final = 5.0
USERS_NAP_S: Final = 1.0
# Spreads the calls of waiting workers over time.
SPREAD_S: Final = 0.25
NO_LIMITS: Final = EvalLimits()


@dataclass(frozen=True, slots=True)
class UsersTurn:
    """Asks permits for one client's calls, so that users of its account come first."""

    meter: AccountMeter
    stored: StoredLoads
    account: str
    provider: str  # its name
    model: str

    async def permit(self) -> Permit:
        """Reads the newest reports, and returns the permit. Without the database, it uses the
        last reports.
        """
        if self.meter.is_due:
            with suppress(StoreUnavailable):
                await asyncio.to_thread(self.meter.refresh, self.stored)
        return self.meter.permit(self.account, self.model)

    def count_calls(self) -> int:
        """Returns how many slots the account has. A call waits for its permit in a slot."""
        return max(1, self.meter.permit(self.account, self.model).calls)

    @property
    def has_begun(self) -> bool:
        """Whether the account has sent this process an answer. Each process waits for its own
        first answer.
        """
        return self.meter.has_answer(self.account)

    def note(self, headers: Mapping[str, str], *, refused: bool) -> None:
        """Notes the headers of an answer, or of a 429.

        Args:
            headers: names in lower case.
        """
        call = self.account, self.provider, self.model, headers
        if refused:
            self.meter.note_refusal(*call, of_user=False)
        else:
            self.meter.note_answer(*call)


@dataclass(frozen=True, slots=True)
class RateGates:
    """Builds the gates of all clients of a process."""

    limits: Mapping[str, EvalLimits]  # by provider
    book: RateBook  # shared by all workers of this machine
    folder: Path  # the slots of all providers, shared by all workers of this machine
    # meter, stored: the reports about accounts; None if calls need not give way to users.
    meter: AccountMeter | None = None
    stored: StoredLoads | None = None

    def gate_for(self, provider: str, model: str, account: str = "") -> "RateGate":
        """Opens the gate for one client of a target; close it in the same event loop.

        Args:
            account: see `account_of`; empty if the client need not give way to users.
        """
        users = self._build_turn(provider, model, account)
        limits = self.limits.get(provider, NO_LIMITS)
        max_calls = limits.max_concurrent
        # A provider's name may contain characters that a file's name cannot.
        folder = self.folder / short_hash(provider).hex()
        slots = Slots(folder, lambda: max_calls) if max_calls else None
        speed = SharedSpeed(folder / short_hash(model).hex(), max_calls or MOST_CALLS)
        in_turn = None
        if users is not None:
            in_turn = Slots(self.folder / f"account-{account}", users.count_calls, fair=True)
        return RateGate(provider, limits.rate, self.book, speed, slots, users, in_turn)

    def _build_turn(self, provider: str, model: str, account: str) -> UsersTurn | None:
        if self.meter is None or self.stored is None or not account:
            return None
        return UsersTurn(self.meter, self.stored, account, provider, model)


SPEED: Final = Struct(f"{len(CallSpeed._fields)}d")


class SharedSpeed:
    """The call speed and slots of one target, for all processes of this machine.

    Inspect's adaptive concurrency considers neither answer times nor other processes.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.most = most
        self.slots = Slots(folder, self.count_calls)
        self._file = os.open(folder / "speed", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def count_calls(self) -> int:
        """Returns how many calls to the target may be in progress at once, over all
        processes.
        """
        return min(
            self.most,
            int(current_speed(self._load(), time.monotonic()).calls),
        )

    def note(self, decide: Callable[[CallSpeed], CallSpeed]) -> None:
        """Changes the stored speed. `decide` must be quick, because other processes wait for
        the lock.
        """
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            os.pwrite(self._file, SPEED.pack(*decide(self._load())), 0)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        self.slots.close()
        os.close(self._file)

    def _load(self) -> CallSpeed:
        stored_bytes = os.pread(self._file, SPEED.size, 0)
        return (
            CallSpeed(*SPEED.unpack(stored_bytes))
            if len(stored_bytes) == SPEED.size
            else CallSpeed()
        )


@dataclass(slots=True)
class Turn:
    """One admitted call. The caller reports its end once, which adapts the target's speed."""

    gate: "RateGate"
    estimated: float  # tokens
    full: bool  # all allowed calls are in progress
    started_at: float = field(default_factory=time.monotonic)

    def answered(self, tokens: int) -> None:
        """Reports an answer and its tokens, as the provider counted them."""
        self.gate.settle(self.estimated, tokens)
        call = self._ended_call(tokens)
        most = self.gate.speed.most
        self.gate.speed.note(lambda speed: note_answer(speed, call, most))

    def overloaded(self) -> None:
        """Reports that the provider refused the call for its load, or did not answer."""
        call = self._ended_call()
        self.gate.speed.note(lambda speed: note_overload(speed, call))

    def _ended_call(self, tokens: int = 1) -> EndedCall:
        return EndedCall(self.started_at, time.monotonic(), self.full, tokens)


@dataclass(frozen=True, slots=True)
class RateGate:
    """Delays the calls of one client of a target."""

    provider: str
    limit: RateLimit
    book: RateBook
    speed: SharedSpeed  # of the target
    slots: Slots | None = None  # of the provider, if it limits parallel calls
    # users, in_turn: the rule and the slots of the account; None without a rule for users.
    users: UsersTurn | None = None
    in_turn: Slots | None = None
    # One call at a time waits for the rate; the other calls wait in order.
    _rate_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    # Only one call may run until the first answer.
    _first_answer_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def acquire(self, request_bytes: int) -> AsyncIterator[Turn]:
        """Waits until a call may begin, and holds its slots inside the block.

        Args:
            request_bytes: size of the request, from which the gate estimates tokens until the
                provider counts them.

        Raises OSError if the shared files cannot be used.
        """
        tokens = request_bytes / BYTES_PER_TOKEN
        async with AsyncExitStack() as stack:
            if self.users is not None and not self.users.has_begun:
                await self._first_answer_lock.acquire()
                if self.users.has_begun:
                    self._first_answer_lock.release()
                else:
                    stack.callback(self._first_answer_lock.release)
            slot = await stack.enter_async_context(self.speed.slots.one())
            full = slot + 1 >= self.speed.count_calls()
            for slots in (self.slots, self.in_turn):
                if slots is not None:
                    await stack.enter_async_context(slots.one())
            async with self._rate_lock:
                # Other processes change the files without a signal, so we must poll.
                while (wait_s := await self._users_wait_s() or self._wait_s(tokens)) > 0:  # noqa: ASYNC110
                    await asyncio.sleep(min(LONGEST_NAP_S, wait_s))
            if self.users is not None:
                self.users.meter.note_call(self.users.account, self.provider)
            yield Turn(self, tokens, full)

    async def _users_wait_s(self) -> float:
        """Returns the seconds that a call must wait for the account's users. With 0 seconds,
        the call takes its turn.
        """
        if self.users is None:
            return 0.0
        permit = await self.users.permit()
        if permit.calls == 0:
            return min(USERS_NAP_S, permit.wait_s)
        if permit.gap_s == 0:
            return 0.0
        now = time.monotonic()
        wait_s = 0.0

        def take_turn(state: RateState) -> RateState:
            nonlocal wait_s
            # Only another clock, such as one before a restart, can count a longer wait.
            wait_s = state.requests_until - now
            if 0 < wait_s <= LONGEST_GAP_S:
                return state
            wait_s = 0.0
            return state._replace(requests_until=now + permit.gap_s)

        self.book.change(f"users:{self.users.account}", take_turn)
        return wait_s

    def hold(self, seconds: float) -> None:
        """Delays all calls to the provider by this pause, for all workers of this machine."""
        until = time.monotonic() + seconds + JITTER.uniform(0, SPREAD_S)
        self.book.change(
            f"hold:{self.provider}",
            lambda state: state._replace(requests_until=max(state.requests_until, until)),
        )

    def note_headers(self, headers: Mapping[str, str], *, refused: bool) -> None:
        """Notes the limits that an answer reports.

        Args:
            refused: it is a 429.
        """
        if self.users is not None:
            self.users.note(headers, refused=refused)

    def close(self) -> None:
        self.speed.close()
        for slots in (self.slots, self.in_turn):
            if slots is not None:
                slots.close()

    def _wait_s(self, tokens: float) -> float:
        """Returns how many seconds the call has to wait; 0 admits it and counts it."""
        now = time.monotonic()
        pause = self.book.change(f"hold:{self.provider}", lambda state: state)
        if pause.requests_until > now:
            return pause.requests_until - now
        if self.limit.requests_per_min is None and self.limit.tokens_per_min is None:
            return 0.0
        decisions: list[RateDecision] = []

        def admit(state: RateState) -> RateState:
            decisions.append(admit_request(state, self.limit, tokens, now))
            return decisions[-1].state

        self.book.change(self.provider, admit)
        return decisions[-1].retry_after_s

    def settle(self, estimated: float, actual: int) -> None:
        """Replaces the estimated tokens of a call by the provider's count."""
        if self.limit.tokens_per_min is not None:
            now = time.monotonic()
            self.book.change(
                self.provider,
                lambda state: settle_request(
                    state,
                    self.limit,
                    estimated=estimated,
                    actual=actual,
                    now=now,
                ),
            )
