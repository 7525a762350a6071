"""What every use case needs of the world, in one frozen bundle."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.control.clock_watch import ClockWatch
from harness.domain.drift.watch import DriftPolicy
from harness.domain.errors import ConfigError, NotFound
from harness.domain.operations.state_audit import AuditProgress
from harness.domain.proposals.policy import Policy
from harness.domain.providers.catalogue import Catalogue
from harness.domain.providers.oauth_kinds import OAuthOverrides
from harness.domain.routing.target import Target
from harness.ports import (
    AlertSinks,
    AuditAnchor,
    Chance,
    Cipher,
    Clock,
    EvalWorkers,
    ModelTable,
    OAuthServer,
    ProviderDoor,
    Store,
    SuiteCatalog,
)

if TYPE_CHECKING:
    # With numpy, which no router process needs.
    from harness.gate.offline.recomputation import Recomputation


class NoCipher:
    """Where a process has no encryption keys: nothing can be stored or read."""

    def encrypt(self, text: str) -> str:  # noqa: ARG002 - the port's signature
        raise ConfigError("this process has no encryption keys")

    def decrypt(self, token: str) -> str:  # noqa: ARG002 - the port's signature
        raise ConfigError("this process has no encryption keys")

    again = decrypt


@dataclass(frozen=True)
class Context:
    """eval_workers: how many run at once. workers: None where this process starts none.

    sinks: None where nobody is told of alerts.
    eval_connections: answers that one worker waits for at a time.
    data_classes: names of the providers that may see data of a class.
    drift: by suite, of those whose incumbents are watched.
    clock_watch: of this process's clock. audit_walk: how far it has compared state and log.
    allow_addresses: that providers may have though they are closed.
    recomputed: what was found of verdicts that this process decided again.
    models: what is known of models; None where nothing is. judges: by suite.
    cipher: for what is stored encrypted. environ: where providers' keys may stand, too.
    door: None where no provider is asked. anchor: None where the log's end is kept nowhere.
    oauth: where people sign in; None where this process cannot. oauth_changes: by provider.
    """

    store: Store
    clock: Clock
    chance: Chance
    suites: SuiteCatalog
    policies: Mapping[str, Policy]
    workers: EvalWorkers | None = None
    eval_workers: int = 2
    sinks: AlertSinks | None = None
    eval_connections: int = 8
    data_classes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    drift: Mapping[str, DriftPolicy] = field(default_factory=dict)
    clock_watch: ClockWatch = field(default_factory=ClockWatch)
    audit_walk: AuditProgress = field(default_factory=AuditProgress, repr=False)
    models: ModelTable | None = None
    judges: Mapping[str, Target] = field(default_factory=dict)
    allow_addresses: tuple[str, ...] = ()
    recomputed: "dict[str, Recomputation]" = field(default_factory=dict, repr=False)

    @property
    def catalogue(self) -> Catalogue:
        return self.models.catalogue() if self.models is not None else Catalogue()

    cipher: Cipher = field(default_factory=NoCipher)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    door: ProviderDoor | None = None
    anchor: AuditAnchor | None = None
    oauth: OAuthServer | None = None
    oauth_changes: Mapping[str, OAuthOverrides] = field(default_factory=dict)

    def policy(self, name: str) -> Policy:
        """Raises NotFound with the nearest policy."""
        try:
            return self.policies[name]
        except KeyError:
            near = difflib.get_close_matches(name, self.policies, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise NotFound(f"there is no policy {name!r}{hint}") from None
