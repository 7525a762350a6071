"""Ledgers of several routers that share a store of keys and failed requests, in memory."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from harness.gate.online.guardrails import ExposureRule
from harness.gate.online.late_outcomes import FailedTurn, FailedTurns
from harness.gate.online.observation import ObservationBlock, claim_keys
from harness.gate.online.reading.scored_exposures import (
    LaterTurn,
    LedgerExposure,
    RequestTraits,
)
from harness.routing.records.block_checks import check_block
from router.recording.ledger import Ledger
from tests.support.canary.outcomes import outcome_of

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
SERVED: Final = RequestTraits.SERVED.value


class SharedFailures:
    """The store of failed requests."""

    def __init__(self) -> None:
        self._turns: list[FailedTurn] = []

    def exchange(
        self,
        ledger: Ledger,
        now: float,
        at: datetime,
        *,
        final: bool = False,
    ) -> None:
        """Does for one ledger what `FailureExchange` does for all of a process."""
        due = ledger.due_windows(now, at, final=final)
        if due is None:
            return
        windows, oldest_at = due
        unsent = windows.unsent
        self._turns += unsent
        found = FailedTurns(len(self._turns), self._turns[windows.cursor :])
        windows.enter(found, sent=len(unsent), now=now, oldest_at=oldest_at)


class SharedLedgers:
    """The routers of one rollout. blocks: what they sent, with numbers in order of arrival.

    away: the store does not answer.
    """

    def __init__(self, rule: ExposureRule, routers: int = 1) -> None:
        self.rule = rule
        self.start = START
        self.now = 0.0
        self.away = False
        self.ledgers = [Ledger("r", f"w-{n}", rule) for n in range(routers)]
        self.blocks: list[ObservationBlock] = []
        self._failures = SharedFailures()
        self._pages: dict[int, bytes] = {}

    @property
    def at(self) -> datetime:
        return self.start + timedelta(seconds=self.now)

    def admit(
        self,
        key: str,
        *,
        canary: bool = False,
        router: int = 0,
        weight_bps: int = 5000,
        client: str = "",
    ) -> LedgerExposure | LaterTurn | None:
        return self.ledgers[router].admit(
            key,
            canary=canary,
            weight_bps=weight_bps,
            now=self.now,
            at=self.at,
            traits=SERVED,
            client=client,
        )

    def finish(
        self,
        admitted: LedgerExposure | LaterTurn | None,
        *,
        failed: bool = False,
        router: int = 0,
    ) -> None:
        if admitted is not None:
            outcome = outcome_of(failed=failed)
            self.ledgers[router].finish(admitted, outcome=outcome, now=self.now)

    def hear(
        self,
        admitted: LedgerExposure | LaterTurn | None,
        *,
        bad: bool,
        router: int = 0,
    ) -> bool:
        """Enters feedback, and returns whether it counts."""
        if not isinstance(admitted, LedgerExposure):
            return False
        return self.ledgers[router].note_feedback(admitted, bad=bad, now=self.now)

    def ask(
        self,
        key: str,
        *,
        canary: bool = False,
        failed: bool = False,
        router: int = 0,
        weight_bps: int = 5000,
        client: str = "",
    ) -> bool:
        """Sends a request, and returns whether it counts."""
        admitted = self.admit(
            key,
            canary=canary,
            router=router,
            weight_bps=weight_bps,
            client=client,
        )
        self.finish(admitted, failed=failed, router=router)
        return admitted is not None

    def wait(self, seconds: float) -> None:
        """Lets the time pass; each router works at the end, and once before."""
        for part_s in (seconds / 2.0, seconds / 2.0):
            self.now += part_s
            self.tick()

    def tick(self) -> None:
        for ledger in self.ledgers:
            self._share(ledger, final=False)
            self._send(ledger.tick(self.now, self.at))

    def stop(self, router: int) -> None:
        """Ends a router's process in good order; a new one takes its place."""
        ledger = self.ledgers[router]
        self._share(ledger, final=True)
        self.now += 0.5
        self._send(ledger.close(self.now, self.at))
        self.kill(router)

    def kill(self, router: int) -> None:
        """Ends a router's process at once; a new one takes its place."""
        self.ledgers[router] = Ledger("r", f"w-{router}-again", self.rule)

    def _share(self, ledger: Ledger, *, final: bool) -> None:
        if self.away:
            return
        for block in ledger.unclaimed(self.now, self.at, final=final):
            changed, found = claim_keys(self._pages, ledger.claim_of(block))
            self._pages.update(changed)
            ledger.enter_histories(block, found)
        self._failures.exchange(ledger, self.now, self.at, final=final)

    def _send(self, blocks: list[ObservationBlock]) -> None:
        for block in blocks:
            check_block(block)
            self.blocks.append(replace(block, number=len(self.blocks) + 1))
