"""Builds an installation with a history for the dashboard's tests, by the real use cases: one
route for each fate of a proposal, with traffic. `paused` changes it later.

Simulated models answer real items, the real scorers score them, the gate judges them, and
`reconcile` moves proposals and canaries on. Only the provider's HTTP is left out.
"""

import fcntl
import functools
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import pytest

from evals.runner.questions import plan_questions
from evals.sim import answers, profiles
from evals.sim import simulated_model as sim_suites
from evals.sim.simulated_model import ItemBank, SimulatedModel
from evals.suites.configured_suites import ConfiguredSuites
from harness.app import seed
from harness.app.database import upgrade_database
from harness.app.installation import Installation, open_installation
from harness.canary import machine, operations
from harness.frame.people.access import Actor, Role
from harness.gate.online.guardrails import (
    ArmSplit,
    ErrorTally,
    FailureTally,
    Guardrail,
)
from harness.gate.online.observation import ObservationBlock, TrafficMinute
from harness.gate.online.rollout import Rollout, RolloutSignal
from harness.gate.run import EvalRun, RunState, Sample
from harness.operations import control_jobs
from harness.operations.context import Context
from harness.proposals import submission
from harness.providers.records import Targets
from harness.routing.records.observations import Observations
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns
from tests.support.control.manual_clock import ManualClock
from tests.support.control.router_rows import let_router_serve
from tests.support.store.records import TRAFFIC

XSS = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"

MINUTE = timedelta(minutes=1)
# A house that was built for another module is built anew after this time.
STALE_S = 1800
ANA = Actor("ana", Role.ADMIN, "pr_ana")
BEN = Actor("ben", Role.ADMIN, "pr_ben")

CONFIG = """
providers:
  sim:
    api_base: http://127.0.0.1:9/v1
    prices:
PRICES
policies:
  automatic:
    gate: {n_max: 200}
    canary: &canary
      steps:
        - {weight_bps: 100, min_exposures: 60}
        - {weight_bps: 500, min_exposures: 200}
        - {weight_bps: 2500, min_exposures: 400, certify: true}
  # Its equal candidate must not pass by luck, whichever order a suite's digest gives.
  unlucky:
    gate: {n_max: 200, alpha: 0.0005}
    canary: *canary
  asked:
    promotion: approved
    gate: {n_max: 200}
    canary: *canary
routes:
  support-chat:
    incumbent: sim/sim-base
    fallbacks: [sim/sim-backup]
    description: Answers customers and routes their tickets
    policy: automatic
    suites:
      - {suite: tickets, role: primary}
      - {suite: arithmetic, role: required}
      - {suite: extraction, role: required}
      - {suite: instructions, role: required}
  order-forms: &one
    incumbent: sim/sim-base
    policy: automatic
    suites: [{suite: extraction, role: primary}]
  quiet: *one
  math-tutor: {<<: *one, suites: &sums [{suite: arithmetic, role: primary}]}
  drafts: {<<: *one, suites: *sums}
  newsletter: {<<: *one, policy: unlucky, suites: [{suite: instructions, role: primary}]}
  search-help: {<<: *one, suites: &tickets [{suite: tickets, role: primary}]}
  faq: {<<: *one, suites: *tickets}
  mail-triage: {<<: *one, policy: asked, suites: *tickets}
  returns: {<<: *one, policy: asked, suites: *tickets}
"""


@dataclass(frozen=True)
class Lived:
    config: Path
    proposals: Mapping[str, str]


def configured(home: Path) -> Path:
    if (home / "swapproof.yaml").exists():  # made before, and perhaps in use
        return home / "swapproof.yaml"
    home.mkdir(parents=True, exist_ok=True)
    for name, (mode, content) in _empty_files().items():
        path = home / name
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)
        path.chmod(mode)
    return home / "swapproof.yaml"


@functools.cache
def _empty_files() -> Mapping[str, tuple[int, bytes | None]]:
    """By path: mode and content of what `configured` writes, made once in each process."""
    with TemporaryDirectory() as folder:
        home = Path(folder)
        file = home / "swapproof.yaml"
        file.write_text("home: state\n", encoding="utf-8")
        with opened(file, ManualClock()) as installation:
            upgrade_database(installation.settings)
        return {
            str(path.relative_to(home)): (
                stat.S_IMODE(path.stat().st_mode),
                None if path.is_dir() else path.read_bytes(),
            )
            for path in sorted(home.rglob("*"))
        }


def lived_copy(factory: pytest.TempPathFactory, now: datetime) -> Lived:
    """A copy of an installation that only the first of a run's workers builds; the traffic of
    the last hour is each copy's own.
    """
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with (shared / "lived.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = shared / "lived.json"
        if not kept.exists() or now.timestamp() - kept.stat().st_mtime > STALE_S:
            # Others may still be reading the former one.
            built = _furnished(Path(mkdtemp(prefix="lived-", dir=shared)), now)
            kept.write_text(json.dumps([str(built.config), *built.proposals.items()]))
        config, *proposals = json.loads(kept.read_text())
    home = factory.mktemp("lived-copy") / "home"
    copy = shutil.copytree(Path(config).parent, home) / Path(config).name
    _record_traffic(copy, now)
    return Lived(copy, dict(proposals))


def _furnished(home: Path, now: datetime) -> Lived:
    """What is done before the last hour."""
    home.mkdir(parents=True, exist_ok=True)
    file = home / "swapproof.yaml"
    prices = "".join(
        f"      {name}: {{input_usd_per_mtok: {p.price.input_usd_per_mtok}, "
        f"output_usd_per_mtok: {p.price.output_usd_per_mtok}}}\n"
        for name, p in profiles.load_profiles().items()
    )
    text = "home: state\n" + CONFIG.replace("PRICES\n", prices)
    file.write_text(text, encoding="utf-8")
    clock = ManualClock(now - timedelta(hours=3))
    with opened(file, clock) as installation:
        upgrade_database(installation.settings)
        ctx = installation.context
        seed.apply_seed(ctx, installation.settings)
        let_router_serve(installation.store)
        house = _House(ctx, clock, _Class(installation.settings.suites))
        made = house.furnish()
    return Lived(file, made)


@contextmanager
def opened(file: Path, clock: ManualClock) -> Iterator[Installation]:
    installation = replace(open_installation(file, create_secret=True), clock=clock)
    try:
        yield installation
    finally:
        installation.close()


class _Class:
    def __init__(self, settings: Mapping[str, object]) -> None:
        self.catalog = ConfiguredSuites(settings)  # type: ignore[arg-type]  # SuiteSettings by name
        items = sim_suites.load_suites(settings.values())  # type: ignore[arg-type]
        self._items = {(item.suite, item.id): item for item in items}
        bank = ItemBank(items)
        self._pupils = {
            name: SimulatedModel(p, bank) for name, p in profiles.load_profiles().items()
        }

    def samples(
        self,
        run: EvalRun,
        model: str,
        upto: int,
    ) -> Iterator[Sample]:
        suite = self.catalog.suite(run.suite)
        pupil = self._pupils[model]
        plan = plan_questions(
            suite.groups,
            order_seed=run.order_seed,
            wanted=run.wanted,
            epochs=run.epochs,
        )
        for question in plan[:upto]:
            name = question.item
            prompt = suite.prompt(name)
            sat = pupil.sit(self._items[run.suite, name])
            answer = answers.answer(sat, pupil.profile, prompt=prompt)
            score = suite.score(answer, name)
            asked = sim_suites.count_message_tokens([prompt])
            written = sim_suites.count_tokens(answer)
            latency = pupil.profile.latency
            luck = sim_suites.normal("latency", model, name)
            yield Sample(
                run=run.id,
                item=name,
                epoch=question.epoch,
                position=question.position,
                answer=answer,
                strict=score.strict,
                lenient=score.lenient,
                input_tokens=asked,
                output_tokens=written,
                cost_usd=pupil.profile.price.cost_usd(asked, written),
                duration_s=latency.first_token_s(luck) + latency.generation_s(written),
                prompt=prompt,
                rule=score.rule,
            )


class _House:
    def __init__(
        self,
        ctx: Context,
        clock: ManualClock,
        pupils: _Class,
    ) -> None:
        self.ctx = ctx
        self.clock = clock
        self.pupils = pupils

    def furnish(self) -> Mapping[str, str]:
        made = {
            "canary": self.proposed("support-chat", "sim-better", ANA),
            "failed": self.proposed("math-tutor", "sim-worse", ANA, f"cheaper {XSS}"),
            "mismatch": self.proposed("order-forms", "sim-fenced", BEN),
            "inconclusive": self.proposed("newsletter", "sim-equal", BEN),
            "awaiting": self.proposed("mail-triage", "sim-better", ANA, "better and cheaper"),
            "promoted": self.proposed("faq", "sim-better", ANA),
            "rolled_back": self.proposed("search-help", "sim-fragile", BEN),
        }
        self.sit(at_most=200)
        self.run_until_idle()
        self.clock.advance(3600)
        self.blocks("support-chat", 60, failed=lambda n: int(n in (7, 31, 44)))
        self.run_until_idle()
        self.blocks("search-help", 12, failed=lambda _: 2)
        self.run_until_idle()
        for number in (8, 6, 8):
            self.blocks("faq", number)
            self.run_until_idle()
        made["evaluating"] = self.proposed("drafts", "sim-better", BEN)
        self.sit(at_most=12)
        return made

    def proposed(
        self,
        route: str,
        model: str,
        actor: Actor,
        reason: str = "",
    ) -> str:
        request = submission.ProposalRequest(route, f"sim/{model}", reason=reason)
        proposal = submission.create_proposal(self.ctx, actor, request)
        self.run_until_idle()
        return proposal.id

    def run_until_idle(self) -> None:
        while control_jobs.reconcile(self.ctx).did:
            self.clock.advance(20)

    def sit(self, at_most: int) -> None:
        with self.ctx.store.read() as tx:
            targets = Targets(tx).all()
            runs = EvalRuns(tx).list(states=[RunState.QUEUED])
        for run in runs:
            model = targets[run.target].model
            with self.ctx.store.write() as tx:
                for sample in self.pupils.samples(run, model, at_most):
                    EvalRuns(tx).store_sample(_marked(sample, model))
                state = RunState.DONE if at_most >= run.wanted else RunState.RUNNING
                EvalRuns(tx).set_state(run.id, state)

    def rollout(self, route: str) -> Rollout:
        with self.ctx.store.read() as tx:
            return machine.find_live(tx, route)

    def blocks(
        self,
        route: str,
        number: int,
        *,
        failed: Callable[[int], int] = lambda _: 0,
        worker: str = "w1",
    ) -> None:
        """Blocks of 1,000 requests at the rollout's weight.

        Args:
            failed: of each one's canary.
        """
        rollout = self.rollout(route)
        bps = rollout.current.weight_bps
        with self.ctx.store.write() as tx:
            for at in range(number):
                now = self.clock.now()
                failures = failed(at)
                units = (1000, 1000 * bps // 10_000 + (at % 3 - 1))
                block = ObservationBlock(
                    rollout=rollout.id,
                    worker=worker,
                    sequence=10_000 * rollout.step + at,
                    weight_bps=bps,
                    units=units[0],
                    canary_units=units[1],
                    failures=failures + at % 4,
                    canary_failures=failures,
                    missing=0,
                    opened_at=now - timedelta(seconds=30),
                    closed_at=now,
                    counts=_errors(units, failures, at),
                )
                Observations(tx).append([block], [])
                self.clock.advance(30)


def _record_traffic(config: Path, now: datetime) -> None:
    """The last hour of three routes, up to this minute."""
    start = now.astimezone(UTC).replace(second=0, microsecond=0)
    with (
        opened(config, ManualClock(now)) as installation,
        installation.context.store.write() as tx,
    ):
        table = Routing(tx).table()
        for name in ("support-chat", "math-tutor", "mail-triage"):
            route = table.routes[name]
            arms = [("incumbent", route.incumbent, 120, 2.4)]
            if route.canary is not None:
                arms.append(("canary", route.canary.target, 6, 1.1))
            Observations(tx).append(
                [],
                [
                    replace(
                        _minute(
                            name,
                            start - back * MINUTE,
                            arm,
                            target,
                            n,
                            price,
                        ),
                        # Its router has not heard of the last change.
                        revision=1 if name == "mail-triage" else 100,
                    )
                    for back in range(60)
                    for arm, target, n, price in arms
                ],
            )


def _errors(
    units: tuple[int, int],
    canary: int,
    at: int,
) -> dict[Guardrail, FailureTally]:
    """The canary's failures time out.

    Args:
        units: all of a block, and those of the canary.
    """
    classes = {
        "server": ArmSplit(at % 4, 0),
        "timeout": ArmSplit(canary, canary),
    }
    return {Guardrail.ERRORS: ErrorTally(*units, canary + at % 4, canary, classes)}


def _minute(
    route: str,
    minute: datetime,
    arm: str,
    target: str,
    requests: int,
    price: float,
) -> TrafficMinute:
    return replace(
        TRAFFIC,
        route=route,
        minute=minute,
        arm=arm,
        target=target,
        revision=100,
        requests=requests,
        failed=0,
        charged=0,
        streams=requests // 2,
        input_tokens=200 * requests,
        output_tokens=60 * requests,
        cost_usd=requests * price / 1000 * (1 + (minute.minute % 7) / 30),
        latency_ms={250: requests // 2, 1000: requests - requests // 2},
    )


def _marked(sample: Sample, model: str) -> Sample:
    """The worse model writes markup; a page must show it and never run it."""
    if model != "sim-worse":
        return sample
    return replace(sample, answer=f"{XSS}\n{sample.answer}")


def paused(config: Path, route: str) -> None:
    with opened(config, ManualClock(datetime.now(UTC))) as installation:  # noqa: TID251
        operations.operate(installation.context, BEN, route, RolloutSignal.PAUSE, "lunch")


def counted(config: Path, route: str) -> None:
    clock = ManualClock(datetime.now(UTC))  # noqa: TID251
    with opened(config, clock) as installation:
        house = _House(installation.context, clock, _Class(installation.settings.suites))
        rollout = house.rollout(route)
        minute = clock.now().replace(second=0, microsecond=0)
        # Counted twice, it would be the same block.
        worker = f"w-{clock.now():%H%M%S%f}"
        house.blocks(route, 1, worker=worker)
        arms = [
            ("incumbent", rollout.incumbent, 990),
            ("canary", rollout.candidate, 10),
        ]
        with installation.context.store.write() as tx:
            Observations(tx).append(
                [],
                [
                    replace(
                        _minute(route, minute, arm, target, n, 2.4),
                        worker=worker,
                    )
                    for arm, target, n in arms
                ],
            )
