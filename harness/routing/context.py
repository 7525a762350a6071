"""What every use case needs of the world, and a watch that notices a clock that was set."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from harness.frame.errors import ConfigError, NotFound
from harness.frame.ports import Calendar, Cipher, World
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import AuditReading
from harness.frame.suggestions import did_you_mean
from harness.gate.drift import DriftPolicy
from harness.gate.policy import Policy
from harness.providers.models.catalogue import Catalogue
from harness.providers.oauth import OAuthOverrides
from harness.providers.ports import ModelTable, OAuthServer, ProviderDoor
from harness.providers.target import Target
from harness.routing.freeze import FreezeWindow
from harness.routing.settings import AgentSettings

if TYPE_CHECKING:
    from harness.agents.caller import ApprovalLinks
    from harness.evals.ports import EvalWorkers, RunQueue, SuiteCatalog

    # With numpy, which no router process needs.
    from harness.proposals.evaluation.recomputation import Recomputation
    from harness.store.store import Store


class NoCipher:
    """Where a process has no encryption keys: nothing can be stored or read."""

    def encrypt(self, text: str) -> str:  # noqa: ARG002 - the port's signature
        raise ConfigError("this process has no encryption keys")

    def decrypt(self, token: str) -> str:  # noqa: ARG002 - the port's signature
        raise ConfigError("this process has no encryption keys")

    reencrypt = decrypt


@dataclass(frozen=True)
class Context(World):
    """Holds what a use case needs of the world: store, clock, suites, policies, ports."""

    suites: "SuiteCatalog"
    policies: Mapping[str, Policy]
    calendar: Calendar | None = None  # None where nothing is scheduled
    workers: "EvalWorkers | None" = None  # None where this process starts none
    eval_workers: int = 2  # how many run at once
    run_queue: "RunQueue | None" = None  # where workers of other hosts take the runs
    eval_connections: int = 8  # answers that one worker waits for at a time
    # Names of the providers that may see data of a class.
    data_classes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    # By suite, of those whose incumbents are watched.
    drift: Mapping[str, DriftPolicy] = field(default_factory=dict)
    # How far this process has verified the audit log.
    audit_reading: AuditReading = field(default_factory=AuditReading, repr=False)
    models: ModelTable | None = None  # what is known of models; None where nothing is
    judges: Mapping[str, Target] = field(default_factory=dict)  # by suite
    allow_addresses: tuple[str, ...] = ()  # that providers may have though they are closed
    # What was found of verdicts that this process decided again.
    recomputed: "dict[str, Recomputation]" = field(default_factory=dict, repr=False)

    @property
    def catalogue(self) -> Catalogue:
        return self.models.catalogue() if self.models is not None else Catalogue()

    cipher: Cipher = field(default_factory=NoCipher)  # for what is stored encrypted
    monthly_cap_usd: float | None = None  # by the file; what is kept stands in the database
    observe_only: bool = False  # no canary opens, and nothing is promoted
    freeze_windows: tuple[FreezeWindow, ...] = ()  # of every week, by the file
    # Where providers' keys may stand, too.
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    door: ProviderDoor | None = None  # None where no provider is asked
    oauth: OAuthServer | None = None  # where people sign in; None where this process cannot
    oauth_changes: Mapping[str, OAuthOverrides] = field(default_factory=dict)  # by provider
    agents: AgentSettings = field(default_factory=AgentSettings)
    approval_links: "ApprovalLinks | None" = None  # None where no link asks people

    def policy(self, name: str) -> Policy:
        try:
            return self.policies[name]
        except KeyError:
            hint = did_you_mean(name, self.policies)
            raise NotFound(f"there is no policy {name!r}{hint}") from None


class UnitRolledBack(Exception): ...


class DryRunStore:
    """A store whose units of work are rolled back at their end."""

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
    """The context whose units of work are rolled back at their end, and that has no workers."""
    return replace(ctx, store=cast("Store", DryRunStore(ctx.store)), workers=None)
