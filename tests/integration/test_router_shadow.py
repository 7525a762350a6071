from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import openai
import pytest

from evals.sim import faults, server
from evals.sim.simulator import Simulator
from harness.app.store.router_store import RouterStore
from harness.app.store.store import Store
from harness.canary import shadows
from harness.canary.shadows import ShadowStatus
from harness.evals.month_spending import (
    PurposeSpending,
    SpendingPurpose,
    month_of,
)
from harness.evals.records import Spending
from harness.evals.spending import load_report
from harness.frame.errors import InputError, NotAllowed, NotFound
from harness.frame.people.access import (
    SYSTEM,
    Actor,
    ApiKey,
    OptOut,
    Role,
    key_hash,
)
from harness.frame.people.records import ApiKeys
from harness.frame.runtime.clock import SystemRandomIds
from harness.operations import keys
from harness.operations.context import Context
from harness.providers.force import SwitchSource, parse_force
from harness.providers.records import Providers, Targets
from harness.providers.target import Price, Provider, Target
from harness.routing.control import freezes
from harness.routing.records.routes import Routing
from harness.routing.route_changes import ChangeSettings, CreateRoute
from harness.routing.route_settings import RouteSettings
from harness.routing.shadow import Shadow, ShadowLimits
from router.recording.recorder import Recorder
from router.snapshot.holder import SnapshotHolder, load_snapshot
from tests.support.control.midday_clock import MiddayClock
from tests.support.router.live_router import (
    KEY,
    QUICK,
    SECRET,
    running_router_on,
    wait_until,
)
from tests.support.router.simulated_router import HELLO, OWN, SPARE
from tests.support.site.signing_keys import CONTROL

pytestmark = pytest.mark.req("F8")

ADA = Actor("ada", Role.APPROVER, "pr_ada")
KIM = Actor("kim", Role.PROPOSER, "pr_kim")
CLOCK = MiddayClock()
OLD = Target("up", OWN)
NEW = Target("other", SPARE)
FREE = Target("other", "sim-worse")
# On a busy machine the candidate's answers may all still be under way at the last question.
ALL = ShadowLimits(
    share_bps=10_000,
    at_once=40,
    requests_per_day=1000,
    usd_per_day=1.0,
)
SLOW = replace(QUICK, first_token_timeout_s=600.0, total_timeout_s=600.0)


@pytest.fixture(scope="module")
def sim() -> Simulator:
    return server.simulator(time_scale=0.0)


@dataclass
class Scene:
    url: str
    ctx: Context
    holder: SnapshotHolder
    recorder: Recorder
    sim: Simulator

    def start(self, **changed: Any) -> Shadow:
        limits = replace(ALL, **changed)
        made = shadows.start_shadow(self.ctx, ADA, "support", NEW.name, limits, reason="a test")
        self.await_mirroring(made)
        return made

    def await_mirroring(self, shadow: Shadow) -> None:
        """Waits until the router has the shadow and knows its budget's use: it mirrors no
        request before.
        """
        self.settled()
        wait_until(lambda: self.recorder.shadows.knows(shadow.id))

    def settled(self) -> None:
        etag = self.ctx.store.snapshot().etag
        wait_until(lambda: self.holder.current and self.holder.current.etag == etag)

    def ask(
        self,
        number: int = 0,
        *,
        stream: bool = False,
        **more: Any,
    ) -> str:
        with openai.OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0) as client:
            given: dict[str, Any] = {
                "model": "support",
                "messages": [{"role": "user", "content": f"{HELLO} {number}"}],
                "user": f"user-{number}",
                **more,
            }
            if stream:
                pieces = client.chat.completions.create(stream=True, **given)
                return "".join(piece.choices[0].delta.content or "" for piece in pieces)
            raw = client.chat.completions.with_raw_response.create(**given)
            assert raw.headers["x-swapproof-target"] == OLD.name
            return raw.parse().choices[0].message.content or ""

    def requests_to(self, model: str = SPARE) -> int:
        stats = self.sim.stats.get(model)
        return stats.requests if stats else 0

    def mirroring(self) -> PurposeSpending:
        with self.ctx.store.read() as tx:
            month = Spending(tx).month(month_of(CLOCK.now()))
        return next(row for row in month.purposes if row.purpose is SpendingPurpose.SHADOW)

    def status(self, condition: Callable[[ShadowStatus], Any]) -> ShadowStatus:
        """Returns the first status for which the condition is true."""
        found: list[ShadowStatus] = []

        def load() -> Any:
            found.append(shadows.load_status(self.ctx, "support"))
            return condition(found[-1])

        wait_until(load)
        return found[-1]


@contextmanager
def scene(
    database_url: str,
    sim: Simulator,
    sim_url: str,
    folder: Path,
    settings: Any = QUICK,
    *,
    cap_usd: float | None = None,
) -> Iterator[Scene]:
    sim.faults.clear()
    sim.stats.clear()
    theirs = Store(
        database_url,
        secret=SECRET,
        clock=CLOCK,
        signatures=CONTROL,
    )
    ours = Store(
        database_url,
        secret=SECRET,
        clock=CLOCK,
        signatures=CONTROL,
    )
    with ours.write() as tx:
        Spending(tx).set_cap(cap_usd, CLOCK.now())
        prices = {OWN: Price(1.0, 2.0), SPARE: Price(10.0, 20.0)}
        for name in ("up", "other"):
            Providers(tx).put(Provider(name, "sim", f"{sim_url}/v1", "UP_KEY", {}, prices))
        for target in (OLD, NEW, FREE):
            Targets(tx).add(target)
        route = CreateRoute("support", OLD.id, (), RouteSettings(data_class="personal"))
        Routing(tx).commit(
            route,
            expected_version=0,
            actor="ada",
            reason="a test",
            now=CLOCK.now(),
        )
        hashed = key_hash(KEY, SECRET)
        ApiKeys(tx).add(ApiKey("k", "test", hashed, "good", None, frozenset(), CLOCK.now()))
    cleared = {
        "personal": frozenset({"up", "other"}),
        "health": frozenset({"up"}),
    }
    ctx = Context(
        store=ours,
        clock=CLOCK,
        chance=SystemRandomIds(),
        suites=None,  # type: ignore[arg-type]  # no suites here
        policies={},
        data_classes=cleared,
    )
    try:
        running = running_router_on(
            RouterStore(theirs),
            folder,
            settings,
            classes=cleared,
            clock=CLOCK,
        )
        with running as (url, holder, recorder):
            yield Scene(url, ctx, holder, recorder, sim)
    finally:
        theirs.close()
        ours.close()


def change(at: Scene, settings: RouteSettings) -> None:
    with at.ctx.store.write() as tx:
        Routing(tx).commit(
            ChangeSettings("support", settings),
            expected_version=1,
            actor="ada",
            reason="a test",
            now=CLOCK.now(),
        )
    at.settled()


def test_answers_are_paired_counted_and_paid_and_users_notice_nothing(
    database_url: str,
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> None:
    with scene(database_url, sim, sim_url, tmp_path) as at:
        without = [at.ask(n) for n in range(3)]
        made = at.start()

        told = [at.ask(n) for n in range(3)]
        streamed = at.ask(3, stream=True)

        status = at.status(lambda s: s.pairs == 4)
        assert told == without
        assert streamed
        assert (status.mirrored, status.left_out, status.harm) == (
            4,
            {},
            False,
        )
        assert status.cost_usd > 0
        wait_until(lambda: at.mirroring().calls == 4)
        assert at.mirroring().spent_usd == pytest.approx(status.cost_usd)
        assert status.today.requests == 4
        assert {check.check: check.both for check in status.checks}["answered"] == 4
        assert status.incumbent is not None
        assert status.candidate is not None
        assert status.candidate.cost_usd > status.incumbent.cost_usd
        # Whoever starts without the database still knows of it.
        assert load_snapshot(tmp_path / "snapshot.json").shadows == (made,)

        shadows.stop_shadow(at.ctx, KIM, "support")
        at.settled()
        at.ask(0)
        assert at.requests_to() == 4


def test_a_candidate_that_hangs_or_fails_harms_nobody_and_is_counted(
    sqlite_url: str,
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> None:
    with scene(sqlite_url, sim, sim_url, tmp_path, SLOW) as at:
        at.start(at_once=1)
        sim.faults.set(SPARE, faults.parse_fault({"kind": "hang"}))

        answers = [at.ask(n) for n in range(20)]

        assert all(answers)
        # One is under way, and the rest is dropped.
        status = at.status(lambda s: s.left_out.get("dropped") == 19)
        assert (status.mirrored, status.left_out) == (1, {"dropped": 19})
        assert at.recorder.counters["shadow_dropped"] == 19
        wait_until(lambda: at.requests_to() == 1)
    # The router has stopped: what was under way was cancelled with it.
    assert sim.stats[SPARE].requests == 1


def test_failures_are_evidence_and_overload_makes_it_rest(
    sqlite_url: str,
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> None:
    with scene(sqlite_url, sim, sim_url, tmp_path) as at:
        at.start()
        sim.faults.set(SPARE, faults.parse_fault({"kind": "garbage"}))
        for number in range(12):
            at.ask(number)
            wait_until(lambda n=number: at.requests_to() == n + 1)
        status = at.status(lambda s: s.checks and s.checks[0].lost == 12)
        assert status.pairs == 0
        assert status.harm

        sim.faults.set(SPARE, faults.parse_fault({"kind": "status", "status": 429}))
        at.ask()
        again = at.status(lambda s: s.checks[0].incumbent_only == 13)
        # Whoever comes twice is shown twice, and is evidence once.
        assert again.checks[0].lost == 12
        at.ask()
        assert at.status(lambda s: s.left_out).left_out == {"resting": 1}


@pytest.mark.req("G5")
def test_it_rests_at_the_monthly_cap_and_goes_on_once_it_is_raised(
    sqlite_url: str,
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> None:
    with scene(sqlite_url, sim, sim_url, tmp_path, cap_usd=0.0) as at:
        at.start()
        assert all(at.ask(number) for number in range(3))
        status = at.status(lambda s: s.left_out.get("over_monthly_cap") == 3)
        assert status.mirrored == at.requests_to() == 0
        assert load_report(at.ctx).reason

        with at.ctx.store.write() as tx:
            Spending(tx).set_cap(5.0, CLOCK.now())
        wait_until(lambda: bool(at.ask()) and at.requests_to() > 0)
        # None may be under way at the end: the next test's simulator would count it.
        mirrored = at.recorder.counters
        wait_until(
            lambda: at.requests_to() == at.mirroring().calls == mirrored["shadow_mirrored"]
        )
        assert not load_report(at.ctx).reason
        assert at.mirroring().spent_usd > 0


def test_nobody_is_asked_under_a_switch_or_for_who_says_no_or_twice(
    sqlite_url: str,
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> None:
    with scene(sqlite_url, sim, sim_url, tmp_path) as at:
        at.start()
        at.ask(extra_headers={"x-swapproof-shadow": "off"})
        keys.set_opt_outs(at.ctx, SYSTEM, "k", [OptOut.SHADOW])
        at.settled()
        at.ask()
        force = freezes.SwitchRequest(parse_force("provider:up"), "a drill")
        freezes.set_switch(at.ctx, ADA, force, source=SwitchSource.CLI)
        at.settled()
        at.ask()

        status = at.status(lambda s: s.left_out.get("declined") == 2)
        assert status.left_out == {"declined": 2}
        assert at.requests_to() == 0


@pytest.mark.parametrize(
    "now",
    [
        RouteSettings(side_effects=True, data_class="personal"),
        RouteSettings(),
    ],
)
def test_a_route_that_changes_under_it_is_mirrored_no_more(
    now: RouteSettings,
    sqlite_url: str,
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> None:
    with scene(sqlite_url, sim, sim_url, tmp_path) as at:
        made = at.start()
        change(at, now)

        at.ask()

        assert at.requests_to() == 0
        (said,) = shadows.end_finished(at.ctx)
        assert made.id in said
        assert "ended by" in shadows.load_status(at.ctx, "support").state
        assert shadows.end_finished(at.ctx) == ()


def test_what_must_not_be_mirrored_is_refused_with_words(
    sqlite_url: str,
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> None:
    with scene(sqlite_url, sim, sim_url, tmp_path) as at:
        wanted = {
            "route_name": "support",
            "candidate_name": NEW.name,
            "reason": "a test",
        }

        def refused(
            error: type[Exception],
            word: str,
            actor: Actor = ADA,
            **more: Any,
        ) -> None:
            with pytest.raises(error, match=word):
                shadows.start_shadow(
                    at.ctx,
                    actor,
                    limits=ALL,
                    **{**wanted, **more},
                )

        refused(NotAllowed, "approver", KIM)
        refused(InputError, "incumbent", candidate_name=OLD.name)
        refused(
            InputError,
            "the price of other/sim-worse is unknown",
            candidate_name=FREE.name,
        )
        refused(InputError, "reason", reason=" ")
        refused(InputError, "90 days", lasts=timedelta(days=91))
        refused(NotFound, "no route", route_name="suport")
        with pytest.raises(NotFound, match="no shadow"):
            shadows.stop_shadow(at.ctx, ADA, "support")
        with pytest.raises(NotFound, match="shadow start"):
            shadows.load_status(at.ctx, "support")
        change(at, RouteSettings(data_class="health"))
        refused(NotAllowed, "health")


def test_tools_that_act_on_the_world_keep_a_route_out(
    sqlite_url: str,
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> None:
    with scene(sqlite_url, sim, sim_url, tmp_path) as at:
        change(at, RouteSettings(side_effects=True))
        with pytest.raises(InputError, match="side_effects"):
            shadows.start_shadow(at.ctx, ADA, "support", NEW.name, ALL, reason="a test")
