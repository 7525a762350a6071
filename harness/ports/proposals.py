"""Protocols of proposals, approvals and verdicts as they are stored, and of rollouts with their
observations: blocks, traffic, and what keys spent.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Protocol

from harness.domain.canary.key_ledger import KeyClaim, KeyHistory
from harness.domain.canary.observation import (
    AskedName,
    ObservationBlock,
    TargetCost,
    TrafficMinute,
    TrafficPoint,
    TrafficTotal,
)
from harness.domain.canary.rollout import Rollout
from harness.domain.evals.verdict import Verdict
from harness.domain.pagination import MOST_LISTED
from harness.domain.proposals.proposal import Approval, Proposal, ProposalPhase
from harness.domain.reliability.spend import KeySpend, SpendTotals


class Proposals(Protocol):
    def add(self, proposal: Proposal) -> None:
        """Adds a proposal. Raises RouteBusy when the route has an open one; the error names
        it.
        """
        ...

    def get(self, proposal: str) -> Proposal:
        """Loads a proposal by id. Raises NotFound."""
        ...

    def save(self, proposal: Proposal) -> Proposal:
        """Stores a proposal at version + 1. Raises StaleWrite if the stored version is
        another.
        """
        ...

    def open(self, *, route: str | None = None) -> Sequence[Proposal]:
        """Lists the open proposals, oldest first; of one route, if it is given."""
        ...

    def list(
        self,
        *,
        route: str | None = None,
        open_only: bool = False,
        limit: int = MOST_LISTED,
        after: str | None = None,
    ) -> Sequence[Proposal]:
        """Lists the proposals, newest first, `limit` at the most. after: the id of the last one
        of the page before.

        Raises NotFound for an `after` that is not stored.
        """
        ...

    def phases(self) -> Mapping[ProposalPhase, int]:
        """How many are in each; none is left out for its signature."""
        ...

    def of_pair(self, route: str, incumbent: str, candidate: str) -> Sequence[Proposal]:
        """Lists a route's proposals between these two targets, newest first."""
        ...

    def since(self, route: str, at: datetime) -> Sequence[Proposal]:
        """Lists a route's proposals made at that time or later, newest first."""
        ...

    def let_in(self, route: str) -> Sequence[Proposal]:
        """Lists the last 20 proposals of a route that a person approved or that had a canary,
        newest first.
        """
        ...

    def of_selection(self, selection: str) -> Sequence[Proposal]:
        """Lists the proposals of a selection in the order in which they were named. Raises
        SignatureInvalid where one is not as it was signed.
        """
        ...

    def of_candidates(self, targets: Collection[str]) -> Sequence[Proposal]:
        """Lists the proposals of these candidates (target ids) on any route, newest first."""
        ...


class Approvals(Protocol):
    def add(self, approval: Approval) -> None:
        """Adds an approval. Raises NotAllowed for the proposer's own, unless the policy says
        `self_approval`.
        """
        ...

    def for_proposal(self, proposal: str) -> Sequence[Approval]:
        """Lists the approvals of a proposal, oldest first."""
        ...


class Verdicts(Protocol):
    def add(self, verdict: Verdict, proposal: str) -> None: ...

    def get(self, verdict: str) -> Verdict:
        """Loads a verdict by id. Raises NotFound."""
        ...

    def newest(self, route: str) -> Verdict | None:
        """Finds a route's newest verdict; None where it has none."""
        ...

    def for_proposal(self, proposal: str) -> Sequence[Verdict]:
        """Lists the verdicts of a proposal, newest first."""
        ...

    def proposal_of(self, verdict: str) -> str:
        """Returns the id of the proposal that a verdict is of. Raises NotFound."""
        ...

    def list(self, *, route: str | None = None, limit: int = MOST_LISTED) -> Sequence[Verdict]:
        """Lists the verdicts, newest first, `limit` at the most."""
        ...


class Rollouts(Protocol):
    def add(self, rollout: Rollout) -> None:
        """Adds a rollout. Raises RouteBusy when the route has a live one, ProofRefused when its
        verdict was another rollout's proof already.
        """
        ...

    def get(self, rollout: str) -> Rollout:
        """Loads a rollout by id. Raises NotFound."""
        ...

    def save(self, rollout: Rollout) -> Rollout:
        """Stores a rollout at version + 1. Raises StaleWrite."""
        ...

    def newest(self, route: str) -> Rollout | None:
        """Finds a route's newest rollout, live or not; None where it had none."""
        ...

    def live(self, *, route: str | None = None) -> Sequence[Rollout]:
        """Lists the live rollouts, oldest first; of one route, if it is given."""
        ...

    def baking(self, *, route: str | None = None) -> Sequence[Rollout]:
        """Lists the rollouts that are promoted, and still compared with the incumbent before;
        of one route, if it is given.
        """
        ...

    def list(
        self,
        *,
        route: str | None = None,
        candidate: str | None = None,
        limit: int = MOST_LISTED,
    ) -> Sequence[Rollout]:
        """Lists the rollouts, newest first, `limit` at the most."""
        ...

    def followed(self, routes: Collection[str]) -> Mapping[str, Mapping[str, Collection[str]]]:
        """Names the incumbents that each candidate was to follow, by route and candidate; for
        figures, so that no signature is checked.
        """
        ...


class Observations(Protocol):
    def append(
        self,
        blocks: Iterable[ObservationBlock],
        traffic: Iterable[TrafficMinute],
        spends: Iterable[KeySpend] = (),
        asked_names: Iterable[AskedName] = (),
    ) -> None:
        """A block already stored (rollout, worker, sequence) is left as it is.

        Traffic of the same (route, minute, worker, arm, target, revision) adds up, and so does
        what a key spent, by (key, day, worker), and what requests asked for, by (route, name,
        day): of a route and day's names past MOST_ASKED_NAMES the sum is kept.
        """
        ...

    def begin_batch(self, id_: str, at: datetime) -> bool:
        """Notes that a batch is stored by this unit of work; False where it was stored before:
        its sender did not hear of it.
        """
        ...

    def forget_batches(self, ids: Collection[str]) -> None:
        """Deletes notes of batches that nobody sends again."""
        ...

    def forget_batches_before(self, before: datetime) -> int:
        """Deletes notes of old batches, whose senders are gone; returns how many."""
        ...

    def claim_keys(self, claim: KeyClaim) -> Sequence[KeyHistory]:
        """Enters a block's keys into the rollout's ledger; gives each one's history before, in
        the order of the claim. Of two claims of one key in one period the first has it.
        """
        ...

    def forget_keys(self, but: Collection[str]) -> int:
        """Deletes the ledgers of all rollouts but these; returns how many pages they had."""
        ...

    def blocks(self, rollout: str, *, after: int = 0) -> Sequence[ObservationBlock]:
        """Lists a rollout's blocks, numbered 1, 2, 3 … in order of arrival. after: only those
        of a higher number.
        """
        ...

    def traffic(self, *, since: datetime, route: str | None = None) -> Sequence[TrafficMinute]:
        """Lists the minutes of traffic, oldest first."""
        ...

    def traffic_of(
        self, routes: Collection[str], *, since: datetime
    ) -> Mapping[str, Sequence[TrafficMinute]]:
        """Lists the minutes of traffic of some routes, by route, oldest first."""
        ...

    def totals(self, *, since: datetime, route: str | None = None) -> Sequence[TrafficTotal]:
        """Sums of what `traffic` gives, in order of route, arm and target. Deleted
        minutes are in it by whole days.
        """
        ...

    def costs_of_targets(
        self, windows: Mapping[tuple[str, str], tuple[datetime, datetime | None]]
    ) -> Mapping[tuple[str, str], TargetCost]:
        """Sums what targets answered, by route and target's id, each in a window of its own:
        from when on and until when, None for no end. Without those that answered nothing.
        """
        ...

    def latencies(
        self, *, since: datetime, route: str | None = None
    ) -> Mapping[tuple[str, str], Mapping[int, int]]:
        """Sums the histograms of what `traffic` gives, by route and target. They are added as
        they are read: of all routes no more than one each is held.
        """
        ...

    def traffic_points(
        self,
        *,
        since: datetime,
        step: timedelta = timedelta(minutes=1),
        route: str | None = None,
    ) -> Sequence[TrafficPoint]:
        """Sums of what `traffic` gives, oldest first, minute by minute; by hours or days where
        `since` begins one and `step` is a multiple of it.
        """
        ...

    def asked_names(self, *, since: date, route: str = "") -> Sequence[AskedName]:
        """Lists by day and name what requests asked for: of a route, what the provider's own
        endpoint alone can do; without one, models that no route is named after.
        """
        ...

    def forget_traffic(self, before: datetime) -> int:
        """Deletes minutes of traffic, sums of hours, and keys' spend by day; sums of days stay.
        Returns how many minutes it deleted.
        """
        ...

    def spend_totals(self, *, today: date, keys: Collection[str]) -> Mapping[str, SpendTotals]:
        """Sums what keys spent today and in today's month, by key; without those that spent
        nothing.
        """
        ...

    def spends(self, *, since: date, keys: Collection[str] | None = None) -> Sequence[KeySpend]:
        """Lists what keys spent on that day and later, in key order; of all keys unless some
        are named.
        """
        ...
