"""The context that every use case gets: store, clock, suites, policies and ports.

`harness.app.installation` builds it, and use cases take it as the first argument. A dry run
passes another one. Nothing here decides; the store's transactions are in
`harness.frame.records.transaction`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from harness.frame.errors import ConfigError, NotFound
from harness.frame.ports import Cipher
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import AuditReading
from harness.frame.suggestions import did_you_mean
from harness.frame.world import World
from harness.gate.order_seeds import OrderSeed, OrderSeeds, UndrawnSeeds
from harness.gate.policy import DriftPolicy, Policy
from harness.providers.models.catalogue import Catalogue
from harness.providers.oauth import OAuthOverrides
from harness.providers.ports import ModelTable, OAuthServer, ProviderDoor
from harness.providers.target import Target
from harness.routing.freeze import FreezeWindow
from harness.routing.settings import AgentSettings

if TYPE_CHECKING:
    from harness.agents.caller import ApprovalLinks
    from harness.app.store.store import Store
    from harness.evals.ports import EvalWorkers, RunQueue, SuiteCatalog

    # Imports numpy, which a router process does not need.
    from harness.proposals.recomputation import Recomputation


class NoCipher:
    """Refuses to encrypt or decrypt, in a process that has no encryption keys."""

    def encrypt(self, text: str) -> str:  # noqa: ARG002 - the port's signature
        raise ConfigError("this process has no encryption keys")

    def decrypt(self, token: str) -> str:  # noqa: ARG002 - the port's signature
        raise ConfigError("this process has no encryption keys")

    reencrypt = decrypt


class NoSeeds:
    """Refuses to draw an order, in a process that registers no comparison."""

    def seed_of(self, suite_digest: str) -> OrderSeed:
        raise ConfigError(
            f"this process has no secret to draw the order of suite {suite_digest[:12]}"
        )


@dataclass(frozen=True)
class Context(World):
    """Everything outside a use case that it may use.

    A port is None in a process that lacks it. Types of higher subjects are named as texts,
    because those subjects import this module.
    """

    suites: "SuiteCatalog"
    policies: Mapping[str, Policy]
    workers: "EvalWorkers | None" = None  # None if this process starts no eval workers
    eval_workers: int = 2  # the most workers at one time
    run_queue: "RunQueue | None" = None  # None: no workers on other hosts
    eval_connections: int = 8  # concurrent calls of one worker
    # The names of the providers that may see a data class, by class.
    data_classes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    # The drift policies of the suites that have drift checks, by suite.
    drift: Mapping[str, DriftPolicy] = field(default_factory=dict)
    # How far this process has verified the audit log.
    audit_reading: AuditReading = field(default_factory=AuditReading, repr=False)
    models: ModelTable | None = None  # known models; None without a model catalogue
    judges: Mapping[str, Target] = field(default_factory=dict)  # by the suite's name
    allow_addresses: tuple[str, ...] = ()  # closed addresses that providers may use
    # Recomputations of verdicts, by the digest of verdict, plans and samples.
    recomputed: "dict[str, Recomputation]" = field(default_factory=dict, repr=False)

    @property
    def catalogue(self) -> Catalogue:
        """The known models at this moment; empty without a model catalogue."""
        return self.models.catalogue() if self.models is not None else Catalogue()

    cipher: Cipher = field(default_factory=NoCipher)  # encrypts texts before they are stored
    monthly_cap_usd: float | None = None  # the file's cap; the database has the present cap
    observe_only: bool = False  # if set, no canary opens and no candidate is promoted
    freeze_windows: tuple[FreezeWindow, ...] = ()  # weekly windows from the file
    # This process's environment variables, including providers' keys.
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    door: ProviderDoor | None = None  # None if this process calls no provider
    oauth: OAuthServer | None = None  # people sign in there; None without sign-in
    oauth_changes: Mapping[str, OAuthOverrides] = field(default_factory=dict)  # by provider
    agents: AgentSettings = field(default_factory=AgentSettings)
    order_seeds: OrderSeeds = field(default_factory=NoSeeds, repr=False)
    approval_links: "ApprovalLinks | None" = None  # None if Swapgate sends no approval links

    def policy(self, name: str) -> Policy:
        """Returns a policy by name. Raises NotFound, with the nearest name."""
        try:
            return self.policies[name]
        except KeyError:
            hint = did_you_mean(name, self.policies)
            raise NotFound(f"there is no policy {name!r}{hint}") from None


class UnitRolledBack(Exception): ...


class DryRunStore:
    """A store that rolls back each transaction at its end."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        with suppress(UnitRolledBack), self._store.write() as tx:
            yield tx
            raise UnitRolledBack


def dry_run_context(ctx: Context) -> Context:
    """Returns the context for a dry run: transactions are rolled back, no worker starts, and no
    order is drawn.
    """
    store = cast("Store", DryRunStore(ctx.store))
    return replace(ctx, store=store, workers=None, order_seeds=UndrawnSeeds())
