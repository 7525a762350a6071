"""`ProposalsContext`: everything outside a use case that a use case of proposals or canaries
may use.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar, cast

from harness.evals.context import EvalsContext
from harness.evals.ports import ItemRequest
from harness.frame.errors import ConfigError
from harness.frame.records.database import Database
from harness.frame.records.transaction import Transaction
from harness.gate.order_seeds import OrderSeed, OrderSeeds, UndrawnSeeds
from harness.gate.run import EvalRun
from harness.routing.context import WhyHidden
from harness.routing.route_settings import Overrides

if TYPE_CHECKING:
    # Imports numpy, which a router process does not need.
    from harness.proposals.recomputation import Recomputation


class NoSeeds:
    """Refuses to draw an item order, in a process that registers no comparison."""

    def seed_of(self, suite_digest: str) -> OrderSeed:
        raise ConfigError(
            f"this process has no secret to draw the order of suite {suite_digest[:12]}"
        )


# Returns the predicate of the override that answers a request; None for the route itself.
OverrideChoice = Callable[[Overrides, ItemRequest], str | None]


def refuse_choice(_overrides: Overrides, _request: ItemRequest) -> str | None:
    """Refuses to choose an override, in a process that does not know the router's rules."""
    raise ConfigError("this process cannot read requests as the router does")


def find_why_hidden(tx: Transaction, run: EvalRun) -> str:
    """Returns why a run's scores and answers are hidden until people have labelled; empty if
    they are shown.
    """
    from harness.proposals.labels import blindness  # noqa: PLC0415 - imports numpy

    return blindness.find_why_hidden(tx, run)


@dataclass(frozen=True, kw_only=True)
class ProposalsContext(EvalsContext):
    """Adds the order seeds of live comparisons, the router's choice of overrides, and a cache
    of recomputed verdicts.
    """

    order_seeds: OrderSeeds = field(default_factory=NoSeeds, repr=False)
    choose_override: OverrideChoice = field(default=refuse_choice, repr=False)
    why_hidden: WhyHidden = field(default=find_why_hidden, repr=False)
    # Recomputations of verdicts, by the digest of verdict, plans and samples.
    recomputed: "dict[str, Recomputation]" = field(default_factory=dict, repr=False)


class TransactionRolledBack(Exception): ...


class DryRunStore:
    """A store that rolls back each transaction at its end."""

    def __init__(self, store: Database) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        with suppress(TransactionRolledBack), self._store.write() as tx:
            yield tx
            raise TransactionRolledBack


C = TypeVar("C", bound=ProposalsContext)


def dry_run_context(ctx: C) -> C:
    """Returns the context for a dry run, which rolls back its transactions, starts no worker
    and draws no item order.
    """
    store = cast("Database", DryRunStore(ctx.store))
    return replace(ctx, store=store, workers=None, order_seeds=UndrawnSeeds())
