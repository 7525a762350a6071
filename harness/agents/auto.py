"""`AutoTargets` chooses the target for the model `auto`: the cheapest target that reaches the
route's floor. A target reaches the floor if the lower 95 % bound of its score on the floor's
suite does.

It chooses the incumbent, or a fallback with valid evidence. It never chooses another target or
the canary, because a proposer must not bring a candidate into traffic by asking for `auto`.

`choose_target` is the pure rule; the class loads the figures for it. The router still decides
whether the chosen target may answer.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, count, takewhile
from statistics import fmean
from typing import Final

from harness.agents.context import AgentsContext
from harness.agents.message import SessionMessage, list_misfits
from harness.evals import proof_validity
from harness.frame.errors import NotFound, SwapproofError
from harness.frame.formatting import format_number, format_thousand_price
from harness.frame.records.transaction import Transaction
from harness.gate.offline.intervals import lower_bound
from harness.gate.pins import (
    ServedModel,
    ServedPin,
    find_replacement,
    is_mixed,
    named_models,
)
from harness.gate.run import EvalRun, RunState, Sample
from harness.gate.suite_plan import SuitePin
from harness.gate.verdict import Passed
from harness.providers.credential import lacks_key
from harness.providers.force import (
    KillSwitch,
    active_switches,
    ruling_switch,
)
from harness.providers.records import Providers, Sightings, Targets
from harness.providers.registry import targets
from harness.providers.registry.named_models import model_capabilities
from harness.providers.registry.provider_secrets import keys_of_provider
from harness.providers.target import Provider, Target, may_see
from harness.providers.target_price import describe_missing
from harness.routing.agent import Agent
from harness.routing.control import data_class_checks, routes
from harness.routing.evidence import EvidenceKind, TargetEvidence
from harness.routing.records.evidence import Waivers
from harness.routing.records.interventions import Switches
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts
from harness.routing.route_settings import Stakes
from harness.routing.settings import AutoFloor
from harness.routing.table import Route

_ENDED_STATES: Final = (RunState.DONE, RunState.STOPPED, RunState.OVER_BUDGET)
MAX_CACHED_MEASUREMENTS: Final = 256


@dataclass(frozen=True, slots=True)
class AutoCandidate:
    """A target that `auto` may choose, with its figures. A missing figure never favours the
    target: without `low` it reaches no floor, and without `usd` its price is not comparable.
    """

    target: str  # id
    name: str  # `provider/model`
    # Lower 95 % bound of its score, from 0 to 1. None without a score or valid evidence, or if
    # the target cannot answer this message.
    low: float | None = None
    usd: float | None = None  # price of 1,000 answers of the scored length; None if unknown

    def reaches(self, floor: float) -> bool:
        """Returns whether the score's bound is at least `floor`, from 0 to 1."""
        return _finite_or_low(self.low) >= floor

    @property
    def has_price(self) -> bool:
        return _finite_or_low(self.usd) >= 0.0


@dataclass(frozen=True, slots=True)
class AutoChoice:
    """The chosen target, and the reason that the answer's message shows."""

    chosen: AutoCandidate
    reason: str  # without the target's name


def choose_target(
    incumbent: AutoCandidate,
    fallbacks: Sequence[AutoCandidate],
    floor: float,
    suite: str,
) -> AutoChoice:
    """Chooses the cheapest candidate that reaches the floor. Among equal prices, the incumbent
    comes first, then the first name. Keeps an incumbent that reaches the floor, but has no
    price.
    """
    if incumbent.reaches(floor) and not incumbent.has_price:
        return keep_incumbent(
            incumbent,
            f"it reaches {floor:g} on {suite}; {describe_missing(incumbent.name)}",
        )
    suitable = [c for c in (incumbent, *fallbacks) if c.reaches(floor) and c.has_price]
    if not suitable:
        return keep_incumbent(incumbent, f"no target is known to reach {floor:g} on {suite}")
    chosen = min(
        suitable,
        key=lambda fit: (_finite_or_low(fit.usd), fit is not incumbent, fit.name),
    )
    scope = f"the cheapest of {len(suitable)}" if len(suitable) > 1 else "the only one"
    reason = (
        f"{scope} known to reach {floor:g} on {suite}: "
        f"{format_number(_finite_or_low(chosen.low))} with 95 percent confidence, "
        f"{format_thousand_price(chosen.usd)} for 1,000 answers"
    )
    return AutoChoice(chosen, reason)


def keep_incumbent(incumbent: AutoCandidate, reason: str) -> AutoChoice:
    return AutoChoice(incumbent, f"the incumbent: {reason}")


def _finite_or_low(value: float | None) -> float:
    """Returns the number; minus infinity for a missing or infinite number."""
    return value if value is not None and math.isfinite(value) else -math.inf


@dataclass(frozen=True, slots=True)
class MeasuredRuns:
    """A target's scored answers, of all its valid runs on one suite.

    low: lower 95 % bound of the mean score, from 0 to 1. None if no answer was scored.
    """

    low: float | None
    input_tokens: float  # mean per answer
    output_tokens: float  # mean per answer
    served: tuple[ServedModel, ...]  # models that the provider reported
    judge: tuple[ServedModel, ...]  # models that the judge's provider reported


@dataclass(frozen=True, slots=True)
class ScoreTerms:
    """The conditions under which a stored score counts for a route."""

    pin: SuitePin  # of the current suite
    served_pin: ServedPin  # how strictly the providers must keep serving the same model
    lasts: timedelta  # how long a measurement is valid


def _list_runs(
    ctx: AgentsContext,
    tx: Transaction,
    target: Target,
    terms: ScoreTerms,
) -> Sequence[EvalRun]:
    """Lists the target's ended runs on the current suite, newest first.

    Omits runs that are older than `terms.lasts`. Omits runs from before a move of the provider,
    because they may have measured another deployment.
    """
    since = ctx.clock.now() - terms.lasts
    runs = EvalRuns(tx).of_suite(target.id, terms.pin.name, terms.pin.digest)
    return [
        run
        for run in takewhile(lambda run: run.created_at > since, runs)
        if run.state in _ENDED_STATES
        and targets.find_move_since(ctx, tx, target.id, run.created_at) is None
    ]


def list_whole_items(samples: Sequence[Sample], epochs: int) -> Sequence[Sample]:
    """Lists the samples of the items before the run's first item with a missing answer.
    Otherwise somebody could raise a score by deleting answers from the database.
    """
    answers = Counter(sample.position for sample in samples)
    first_incomplete = next(position for position in count() if answers[position] != epochs)
    return [sample for sample in samples if sample.position < first_incomplete]


def measure_samples(samples: Sequence[Sample]) -> MeasuredRuns:
    """Measures a score's bound and the tokens of an answer. An item of several epochs counts
    once, with its mean. A missing answer or score counts 0.
    """
    items: dict[str, list[float]] = {}
    for sample in samples:
        items.setdefault(sample.item, []).append(sample.strict or 0.0)
    answered = [sample for sample in samples if sample.is_own]
    return MeasuredRuns(
        low=lower_bound([fmean(scores) for scores in items.values()]) if answered else None,
        input_tokens=fmean([sample.input_tokens for sample in answered] or [math.nan]),
        output_tokens=fmean([sample.output_tokens for sample in answered] or [math.nan]),
        served=named_models(sample.served for sample in answered),
        judge=named_models(sample.judge for sample in answered),
    )


class AutoTargets:
    """Chooses targets for the model `auto`. floors: by route. standing: kill switches of the
    environment and the file.
    """

    def __init__(
        self,
        floors: Mapping[str, AutoFloor],
        standing: Sequence[KillSwitch] = (),
    ) -> None:
        self._floors = floors
        self._standing = standing
        # A key contains the runs' numbers of samples, because an ended run may get more
        # samples.
        self._measured: dict[tuple[object, ...], MeasuredRuns] = {}

    def find(
        self,
        ctx: AgentsContext,
        agent: Agent,
        route: Route,
        messages: Sequence[SessionMessage],
    ) -> AutoChoice:
        """Chooses the target that answers next.

        Args:
            messages: the session's, with the new one last.

        The incumbent answers if the route has no floor or a kill switch is in force.
        """
        with ctx.store.read() as tx:
            incumbent_target = Targets(tx).all()[route.incumbent]
            incumbent = AutoCandidate(incumbent_target.id, incumbent_target.name)
            floor = self._floors.get(route.name)
            if floor is None:
                obstacle = f"route {route.name} has no floor (agents.floors)"
                return keep_incumbent(incumbent, obstacle)
            standing = (*self._standing, *Switches(tx).not_lifted())
            active = active_switches(standing, ctx.clock.now())
            if ruling_switch(active, route.name) is not None:
                return keep_incumbent(incumbent, "a kill switch is in force")
            evidence = Routing(tx).evidence(route.name)
            terms = _load_terms(ctx, route, floor)
            if evidence is None:
                return choose_target(incumbent, (), floor.floor, floor.suite)
            incumbent, *fallbacks = (
                self._assess(ctx, tx, agent, route, entry, terms, messages)
                for entry in (evidence.incumbent, *evidence.fallbacks)
            )
        return choose_target(incumbent, fallbacks, floor.floor, floor.suite)

    def _assess(
        self,
        ctx: AgentsContext,
        tx: Transaction,
        agent: Agent,
        route: Route,
        entry: TargetEvidence,
        terms: ScoreTerms | None,
        messages: Sequence[SessionMessage],
    ) -> AutoCandidate:
        """Loads the figures of a target. They are None if the target cannot answer these
        messages or its evidence is not valid.
        """
        target = Targets(tx).all()[entry.target]
        provider = Providers(tx).all().get(target.provider)
        is_able = provider is not None and _is_able(
            ctx, agent, route, target, provider, messages
        )
        low = usd = None
        if is_able and terms is not None and _has_evidence(ctx, tx, route, entry):
            # A row with an invalid signature proves no score.
            with suppress(SwapproofError):
                low, usd = self._load_score(
                    ctx,
                    tx,
                    target,
                    provider,
                    terms,
                )
        return AutoCandidate(target.id, target.name, low, usd)

    def _load_score(
        self,
        ctx: AgentsContext,
        tx: Transaction,
        target: Target,
        provider: Provider | None,
        terms: ScoreTerms,
    ) -> tuple[float | None, float | None]:
        """Loads the score's lower 95 % bound, and today's price in USD of 1,000 answers.

        Both are None if the provider has replaced the model since the newest run, or if one
        run's answers came from several models. An unknown price is None.
        """
        runs = _list_runs(ctx, tx, target, terms)
        if not runs:
            return None, None
        measured_runs = self._measure(tx, runs)
        newest = runs[0].created_at
        for id_, served in (
            (target.id, measured_runs.served),
            (terms.pin.judge, measured_runs.judge),
        ):
            sightings = Sightings(tx).for_target(id_) if id_ else ()
            replaced = find_replacement(served, sightings, terms.served_pin, decided_at=newest)
            if replaced is not None or is_mixed(served, terms.served_pin):
                return None, None
        price = provider.prices.get(target.model) if provider is not None else None
        if price is None:
            return measured_runs.low, None
        usd = price.cost_usd(measured_runs.input_tokens, measured_runs.output_tokens) * 1000
        return measured_runs.low, usd if math.isfinite(usd) else None

    def _measure(self, tx: Transaction, runs: Sequence[EvalRun]) -> MeasuredRuns:
        key = tuple((run.id, EvalRuns(tx).progress(run.id)[0]) for run in runs)
        if key not in self._measured:
            if len(self._measured) >= MAX_CACHED_MEASUREMENTS:
                self._measured.clear()
            samples_by_run = (
                list_whole_items(EvalRuns(tx).samples(r.id), r.epochs) for r in runs
            )
            self._measured[key] = measure_samples([*chain.from_iterable(samples_by_run)])
        return self._measured[key]


def _load_terms(
    ctx: AgentsContext,
    route: Route,
    floor: AutoFloor,
) -> ScoreTerms | None:
    """Loads the conditions for scores on the floor's suite; None if the suite cannot
    be read.
    """
    try:
        gate = ctx.policy(route.settings.policy).gate
        pin = ctx.suites.pin(floor.suite)
    except Exception:  # noqa: BLE001 - a suite may be a Python file of the user's
        return None
    return ScoreTerms(pin, gate.served_pin, timedelta(seconds=gate.verdict_ttl_s))


def _has_evidence(
    ctx: AgentsContext,
    tx: Transaction,
    route: Route,
    entry: TargetEvidence,
) -> bool:
    """Returns whether the evidence is valid. The incumbent needs no further evidence."""
    if entry.target == route.incumbent:
        return True
    if entry.kind is EvidenceKind.WAIVER:
        waiver_key = (entry.proof, entry.target)
        now = ctx.clock.now()
        waivers = Waivers(tx).list(route=route.name)
        return any((w.id, w.target) == waiver_key and not w.expired(now) for w in waivers)
    if entry.kind is not EvidenceKind.VERDICT:
        history = Routing(tx).history(route.name)
        return routes.find_last_rollback(tx, route.name, entry.target, history) is None
    try:
        verdict = Verdicts(tx).get(entry.proof)
    except NotFound:
        return False
    is_for_entry = (verdict.route, verdict.candidate) == (
        entry.route,
        entry.target,
    )
    is_proof = isinstance(verdict, Passed) and is_for_entry
    if not is_proof or routes.find_rollback_since(tx, verdict) is not None:
        return False
    return proof_validity.assess_proof(ctx, tx, verdict).holds


def _is_able(
    ctx: AgentsContext,
    agent: Agent,
    route: Route,
    target: Target,
    provider: Provider,
    messages: Sequence[SessionMessage],
) -> bool:
    """Returns whether the target has a key, may see the data, and fits the conversation."""
    settings = route.settings
    is_capable = target.id in (route.incumbent, *settings.capable)
    capabilities = model_capabilities(ctx, provider, target.model)
    return (
        capabilities.chat
        and not lacks_key(provider, keys_of_provider(ctx, provider))
        and (settings.stakes is not Stakes.HIGH or is_capable)
        and may_see(ctx.data_classes, agent.data_class, target.provider)
        and not data_class_checks.find_refusal(ctx, settings, target, route=route.name)
        and not list_misfits(
            messages,
            capabilities,
            tools=bool(agent.tools),
            target=target.name,
        )
    )
