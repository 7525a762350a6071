"""`AutoTargets` finds the target that answers a session's next message where its model is
`auto`: the cheapest of the route's incumbent and fallbacks with evidence that holds, and with a
score on the floor's suite whose lower 95 % bound reaches the floor. The router asks it before
the route's other targets.

The canary is never chosen, nor a target that passed its evals and has no place in the route:
a proposer could otherwise bring a candidate into traffic by asking for `auto`. A number that is
missing or not finite never beats the incumbent.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import count, takewhile
from statistics import fmean
from typing import Final

from harness.agents.message import SessionMessage, list_misfits
from harness.evals import proof_validity
from harness.frame.errors import NotFound, SwapgateError
from harness.frame.formatting import format_number, format_thousand_price
from harness.frame.records.transaction import Transaction
from harness.gate.offline.intervals import lower_bound
from harness.gate.pins import ServedModel, ServedPin, find_replacement, is_mixed, named_models
from harness.gate.run import EvalRun, RunState, Sample, SampleError
from harness.gate.suite_plan import SuitePin
from harness.gate.verdict import Passed
from harness.providers.credential import lacks_key
from harness.providers.force import KillSwitch, active_switches, ruling_switch
from harness.providers.records import Providers, Sightings
from harness.providers.target import Provider, Target, may_see
from harness.registry import data_class_checks, targets
from harness.registry.named_models import model_capabilities
from harness.registry.provider_secrets import keys_of_provider
from harness.routes import taken_back
from harness.routing.agent import Agent
from harness.routing.context import Context
from harness.routing.evidence import EvidenceKind, TargetEvidence
from harness.routing.records.evidence import Waivers
from harness.routing.records.interventions import Switches
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts
from harness.routing.settings import AutoFloor
from harness.routing.table import Route, Stakes

_ENDED: Final = (RunState.DONE, RunState.STOPPED, RunState.OVER_BUDGET)
MAX_REMEMBERED: Final = 256


@dataclass(frozen=True, slots=True)
class AutoCandidate:
    target: str  # id
    name: str  # `provider/model`
    # Lower 95 % bound of its score, from 0 to 1; None without one, without evidence that lets
    # the target serve now, and where it cannot answer this message.
    low: float | None = None
    usd: float | None = None  # of 1,000 answers like those that were scored; None if unknown

    def reaches(self, floor: float) -> bool:
        return _number(self.low) >= floor

    @property
    def has_price(self) -> bool:
        return _number(self.usd) >= 0.0


@dataclass(frozen=True, slots=True)
class AutoChoice:
    chosen: AutoCandidate
    reason: str  # one sentence, without the target's name


def choose_target(
    incumbent: AutoCandidate, others: Sequence[AutoCandidate], floor: float, suite: str
) -> AutoChoice:
    """The cheapest of those that reach the floor; of equal ones the incumbent, then the first
    by name. One that reaches it without a price stays: no other is known to be cheaper.
    """
    if incumbent.reaches(floor) and not incumbent.has_price:
        return keep_incumbent(
            incumbent, f"it reaches {floor:g} on {suite}; its price is unknown"
        )
    fits = [c for c in (incumbent, *others) if c.reaches(floor) and c.has_price]
    if not fits:
        return keep_incumbent(incumbent, f"nothing is known to reach {floor:g} on {suite}")
    best = min(fits, key=lambda fit: (_number(fit.usd), fit is not incumbent, fit.name))
    among = f"the cheapest of {len(fits)}" if len(fits) > 1 else "the only one"
    reason = (
        f"{among} known to reach {floor:g} on {suite}: {format_number(_number(best.low))} with "
        f"95 percent confidence, {format_thousand_price(best.usd)} for 1,000 answers"
    )
    return AutoChoice(best, reason)


def keep_incumbent(incumbent: AutoCandidate, reason: str) -> AutoChoice:
    return AutoChoice(incumbent, f"the incumbent: {reason}")


def _number(value: float | None) -> float:
    """Below everything for what is missing, no number, or without bounds."""
    return value if value is not None and math.isfinite(value) else -math.inf


@dataclass(frozen=True, slots=True)
class MeasuredRuns:
    low: float | None
    input_tokens: float  # input_tokens, output_tokens: of one answer, in the mean
    output_tokens: float
    served: tuple[ServedModel, ...]  # what the provider said that it served
    judge: tuple[ServedModel, ...]  # the same of the judge


@dataclass(frozen=True, slots=True)
class ScoreTerms:
    pin: SuitePin  # of the suite as it is now
    served_pin: ServedPin  # what the providers must go on serving
    lasts: timedelta  # how long a measurement holds


def _list_runs(
    ctx: Context, tx: Transaction, target: Target, terms: ScoreTerms
) -> Sequence[EvalRun]:
    since = ctx.clock.now() - terms.lasts
    runs = EvalRuns(tx).of_suite(target.id, terms.pin.name, terms.pin.digest)
    return [
        run
        for run in takewhile(lambda run: run.created_at > since, runs)
        if run.state in _ENDED
        and targets.find_move_since(ctx, tx, target.id, run.created_at) is None
    ]


def list_whole_items(samples: Sequence[Sample], epochs: int) -> Sequence[Sample]:
    """The run's first items, in its order, up to the first that lacks an answer: one that was
    taken out of the database must not raise the score.
    """
    asked = Counter(sample.position for sample in samples)
    whole = next(position for position in count() if asked[position] != epochs)
    return [sample for sample in samples if sample.position < whole]


def measure_samples(samples: Sequence[Sample]) -> MeasuredRuns:
    """An item that was asked several times counts once, with its mean. An answer that never
    came, or has no valid score, counts 0: a caller would have had none.
    """
    items: dict[str, list[float]] = {}
    for sample in samples:
        items.setdefault(sample.item, []).append(sample.strict or 0.0)
    answered = [sample for sample in samples if sample.error is not SampleError.INFRA]
    return MeasuredRuns(
        low=lower_bound([fmean(scores) for scores in items.values()]) if answered else None,
        input_tokens=fmean([sample.input_tokens for sample in answered] or [math.nan]),
        output_tokens=fmean([sample.output_tokens for sample in answered] or [math.nan]),
        served=named_models(sample.served for sample in answered),
        judge=named_models(sample.judge for sample in answered),
    )


class AutoTargets:
    """Chooses who answers for the model `auto`: the cheapest target above the route's floor,
    else the incumbent. floors: by route. standing: kill switches of the environment and the
    file.
    """

    def __init__(
        self, floors: Mapping[str, AutoFloor], standing: Sequence[KillSwitch] = ()
    ) -> None:
        self._floors, self._standing = floors, standing
        # By runs with their counts of samples: ended runs only ever grow.
        self._measured: dict[tuple[object, ...], MeasuredRuns] = {}

    def find(
        self, ctx: Context, agent: Agent, route: Route, messages: Sequence[SessionMessage]
    ) -> AutoChoice:
        with ctx.store.read() as tx:
            own = Routing(tx).targets()[route.incumbent]
            incumbent = AutoCandidate(own.id, own.name)
            floor = self._floors.get(route.name)
            if floor is None:
                obstacle = f"route {route.name} has no floor (agents.floors)"
                return keep_incumbent(incumbent, obstacle)
            standing = (*self._standing, *Switches(tx).not_lifted())
            active = active_switches(standing, ctx.clock.now())
            if ruling_switch(active, route.name) is not None:
                return keep_incumbent(incumbent, "a kill switch is in force")
            evidence, terms = Routing(tx).evidence(route.name), _terms(ctx, route, floor)
            if evidence is None:
                return choose_target(incumbent, (), floor.floor, floor.suite)
            incumbent, *others = (
                self._assess(ctx, tx, agent, route, entry, terms, messages)
                for entry in (evidence.incumbent, *evidence.fallbacks)
            )
        return choose_target(incumbent, others, floor.floor, floor.suite)

    def _assess(
        self,
        ctx: Context,
        tx: Transaction,
        agent: Agent,
        route: Route,
        entry: TargetEvidence,
        terms: ScoreTerms | None,
        messages: Sequence[SessionMessage],
    ) -> AutoCandidate:
        target = Routing(tx).targets()[entry.target]
        provider = Providers(tx).all().get(target.provider)
        able = provider is not None and _is_able(ctx, agent, route, target, provider, messages)
        low = usd = None
        if able and terms is not None and _has_evidence(ctx, tx, route, entry):
            # Where a row's signature does not hold, nothing is known.
            with suppress(SwapgateError):
                low, usd = self._load_score(ctx, tx, target, provider, terms)
        return AutoCandidate(target.id, target.name, low, usd)

    def _load_score(
        self,
        ctx: Context,
        tx: Transaction,
        target: Target,
        provider: Provider | None,
        terms: ScoreTerms,
    ) -> tuple[float | None, float | None]:
        """The lower 95 % bound of the target's score, and today's price of 1,000 answers; None
        for what is not known.
        """
        runs = _list_runs(ctx, tx, target, terms)
        if not runs:
            return None, None
        measured = self._measure(tx, runs)
        newest = runs[0].created_at
        for who, served in ((target.id, measured.served), (terms.pin.judge, measured.judge)):
            sightings = Sightings(tx).for_target(who) if who else ()
            replaced = find_replacement(served, sightings, terms.served_pin, decided_at=newest)
            if replaced is not None or is_mixed(served, terms.served_pin):
                return None, None
        price = provider.prices.get(target.model) if provider is not None else None
        if price is None:
            return measured.low, None
        usd = price.cost_usd(measured.input_tokens, measured.output_tokens) * 1000
        return measured.low, usd if math.isfinite(usd) else None

    def _measure(self, tx: Transaction, runs: Sequence[EvalRun]) -> MeasuredRuns:
        key = tuple((run.id, EvalRuns(tx).progress(run.id)[0]) for run in runs)
        if key not in self._measured:
            if len(self._measured) >= MAX_REMEMBERED:
                self._measured.clear()
            read = [list_whole_items(EvalRuns(tx).samples(run.id), run.epochs) for run in runs]
            samples = [sample for whole in read for sample in whole]
            self._measured[key] = measure_samples(samples)
        return self._measured[key]


def _terms(ctx: Context, route: Route, floor: AutoFloor) -> ScoreTerms | None:
    """None where the suite cannot be read: then nothing is known."""
    try:
        gate = ctx.policy(route.settings.policy).gate
        pin = ctx.suites.pin(floor.suite)
    except Exception:  # noqa: BLE001 - a suite may be a Python file of the user's
        return None
    return ScoreTerms(pin, gate.served_pin, timedelta(seconds=gate.verdict_ttl_s))


def _has_evidence(ctx: Context, tx: Transaction, route: Route, entry: TargetEvidence) -> bool:
    """Whether the evidence holds. The incumbent's holds while it is the incumbent."""
    if entry.target == route.incumbent:
        return True
    if entry.kind is EvidenceKind.WAIVER:
        own, now = (entry.proof, entry.target), ctx.clock.now()
        waivers = Waivers(tx).list(route=route.name)
        return any((w.id, w.target) == own and not w.expired(now) for w in waivers)
    history = Routing(tx).history(route.name)
    if taken_back.find_taken_back(tx, route.name, entry.target, history) is not None:
        return False
    if entry.kind is not EvidenceKind.VERDICT:
        return True
    try:
        verdict = Verdicts(tx).get(entry.proof)
    except NotFound:
        return False
    is_own = (verdict.route, verdict.candidate) == (entry.route, entry.target)
    is_proof = isinstance(verdict, Passed) and is_own
    return is_proof and proof_validity.assess_proof(ctx, tx, verdict).holds


def _is_able(
    ctx: Context,
    agent: Agent,
    route: Route,
    target: Target,
    provider: Provider,
    messages: Sequence[SessionMessage],
) -> bool:
    """Whether the target has a key, may see the data, and can go on with the conversation."""
    settings = route.settings
    is_capable = target.id in (route.incumbent, *settings.capable)
    can = model_capabilities(ctx, provider, target.model)
    return (
        can.chat
        and not lacks_key(provider, keys_of_provider(ctx, provider))
        and (settings.stakes is not Stakes.HIGH or is_capable)
        and may_see(ctx.data_classes, agent.data_class, target.provider)
        and not data_class_checks.find_refusal(ctx, settings, target, route=route.name)
        and not list_misfits(messages, can, tools=bool(agent.tools), target=target.name)
    )
