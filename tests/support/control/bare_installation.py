"""`BareInstallation` is an installation for tests: a real store, a manual clock, one route with
one suite. It evaluates nothing and has no traffic: `SmallInstallation` (`control_plane`) does.
"""

import weakref
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

from evals.suites.configured_suites import ConfiguredSuites
from harness.app.store.store import Store
from harness.evals.settings import SuiteSettings
from harness.frame.people.access import OPERATOR, SYSTEM, Actor, Role
from harness.frame.ports import Chance
from harness.frame.runtime.encryption import FernetCipher
from harness.gate.order_seeds import InstallationSeeds
from harness.gate.policy import DriftPolicy, Policy
from harness.operations import keys
from harness.operations.context import Context
from harness.providers.records import Targets
from harness.providers.registry import targets
from harness.providers.target import Price, Provider
from harness.routing.control import routes
from harness.routing.records.routes import Routing
from harness.routing.route_settings import RouteSettings, RouteSuite
from harness.routing.table import Route, RouteRecord
from tests.support.control.colours_suite import SKILL, suite_file
from tests.support.control.counting_ids import CountingRandomIds
from tests.support.control.known_secrets import ENCRYPTION_KEYS, SECRET
from tests.support.control.manual_clock import ManualClock
from tests.support.control.recording_sinks import RecordingSinks
from tests.support.control.remembered_worlds import MEMORY
from tests.support.control.router_rows import let_router_serve
from tests.support.control.short_policies import POLICY
from tests.support.store.sqlite_store import open_sqlite


@dataclass
class BareInstallation:
    """given: the store; without one, the world has a SQLite file in its folder, and closes
    it.
    """

    folder: Path
    given: InitVar[Store | None] = None
    clock: ManualClock = field(default_factory=ManualClock)
    chance: Chance = field(default_factory=CountingRandomIds)
    policy: Policy = POLICY
    policies: dict[str, Policy] = field(default_factory=dict)  # besides that one
    drift: dict[str, DriftPolicy] = field(default_factory=dict)
    observe_only: bool = False
    sinks: RecordingSinks = field(default_factory=lambda: RecordingSinks("chat", "mail"))
    store: Store = field(init=False)

    def __post_init__(self, given: Store | None) -> None:
        self.store = given or self._own_store()
        self.suites = {
            "colours": SuiteSettings(
                name="colours", path=suite_file(self.folder), scorer="exact"
            )
        }

    def _own_store(self) -> Store:
        opened = open_sqlite(self.folder / "world.db", self.clock, secret=SECRET)
        weakref.finalize(self, opened.close)
        return opened

    def context(self, store: Store | None = None) -> Context:
        suites = ConfiguredSuites(self.suites)
        return Context(
            store=store or self.store,
            clock=self.clock,
            chance=self.chance,
            suites=suites,
            judges=suites.judges,
            policies={**self.policies, self.policy.name: self.policy},
            sinks=self.sinks,
            drift=self.drift,
            observe_only=self.observe_only,
            cipher=FernetCipher(lambda: ENCRYPTION_KEYS),
            order_seeds=InstallationSeeds(SECRET),
        )

    def set_up(self) -> None:
        MEMORY.after(self, "set up", self._set_up)

    def _set_up(self) -> None:
        ctx = self.context()
        prices = {model: Price(1.0, 2.0) for model in SKILL}
        targets.put_provider(
            ctx,
            SYSTEM,
            Provider("sim", "sim", "http://127.0.0.1:9/v1", prices=prices),
        )
        self.add_route("chat")
        let_router_serve(self.store)

    def add_route(self, name: str, incumbent: str = "sim/base") -> Route:
        settings = RouteSettings(suites=(RouteSuite("colours"),))
        return routes.create_route(self.context(), SYSTEM, name, incumbent, settings=settings)

    def route(self, name: str = "chat") -> Route:
        with self.store.read() as tx:
            return Routing(tx).table().routes[name]

    def serving(self, name: str = "chat") -> str:
        with self.store.read() as tx:
            return Targets(tx).all()[self.route(name).incumbent].model

    def person(
        self,
        name: str,
        role: Role = Role.ADMIN,
        by: Actor = OPERATOR,
        **also: Any,
    ) -> Actor:
        _, text = keys.create_key(
            self.context(),
            by,
            name,
            secret=SECRET,
            role=role,
            **also,
        )
        return keys.authenticate(self.store, text, secret=SECRET)


def read_history(ctx: Context, route: str) -> Sequence[RouteRecord]:
    with ctx.store.read() as tx:
        return Routing(tx).history(route)
