"""Whatever a canary's policy registered, its traffic becomes blocks whose counts agree, the
stored blocks are judged to the same bytes, and two processes count the callers that one
would have counted: units of every kind, weight steps, claims that are answered late, feedback,
a judge, segments, warm-up.

What is decided of them, in codes and figures, is in tests/golden/canaries.json. After a change
that is meant, write the file anew: `python -m tests.unit.test_canary_combinations`.
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harness.canary.audit import write_decision_figures
from harness.frame.plain_data import (
    canonical_json,
    from_plain,
    to_plain,
    to_shown,
)
from harness.gate.explain import RolloutExplanation, explain_rollout
from harness.gate.online.exposures import SEGMENTS_FROM
from harness.gate.online.guardrails import (
    CanaryJudge,
    ErrorTally,
    ExposureRule,
    Guardrail,
    Guardrails,
)
from harness.gate.online.observation import (
    SEGMENTS,
    KeyClaim,
    KeyHistory,
    ObservationBlock,
    Segment,
    claim_keys,
)
from harness.gate.online.outcome import JudgeOutcome
from harness.gate.online.reading.scored_exposures import (
    AnswerFault,
    GuardrailSample,
    LaterTurn,
    LedgerExposure,
    RequestTraits,
    SampleValues,
)
from harness.gate.online.rollout import (
    ActionKind,
    Rollout,
    RolloutState,
    build_exposure_rule,
)
from harness.gate.online.rollout_action import decide_action
from harness.gate.online.rollout_evidence import collect_evidence
from harness.gate.policy import CanaryPolicy, CanaryStep
from harness.routing.records.block_checks import check_block
from router.recording.ledger import Ledger
from router.recording.spool import Batch, batch_from_json, batch_to_json
from tests.support.canary.outcomes import outcome_of
from tests.support.canary.shared_ledgers import SharedFailures
from tests.support.sampling import sampled
from tests.unit.test_gate_combinations import rounded

pytestmark = pytest.mark.req("A7", "F3")

SEEDS = range(24)
# `make test` has every sixth; the others are `make verify`'s.
SAMPLED = sampled(SEEDS, SEEDS[::6])
GOLDEN = Path(__file__).parent.parent / "golden" / "canaries.json"
# Of the blocks, how many are in when somebody looks.
SHARES = (0.1, 0.25, 0.5, 1.0)
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY_S = 86_400.0
DAYS = 3
KEYS = 90
# Of a route's day, the seconds in which its callers come: many in a minute, or hardly any.
SPANS_S = (120.0, 7_200.0)
JUDGE = CanaryJudge("up/judge", "It answers.", max_usd=5.0)


@dataclass(frozen=True)
class Request:
    """What one request is, and what becomes of it. feedback_s, verdict_s: after its answer."""

    key: str
    at_s: float
    lasts_s: float
    traits: int
    failed: bool
    sample: GuardrailSample
    feedback_s: float | None
    verdict_s: float | None


@dataclass(frozen=True)
class DrawnCanary:
    """A policy, what its callers ask on three days, and what hinders their counting."""

    policy: CanaryPolicy
    requests: tuple[Request, ...]
    harmed: bool
    # Of claims, the share that the database does not answer at first.
    unanswered: float
    weights: tuple[int, ...]  # of each day, in bps


def draw(seed: int) -> DrawnCanary:
    rng = random.Random(seed)
    judged = rng.random() < 0.4
    harmed = rng.random() < 0.5
    guards = rng.choice(
        (
            Guardrails(),
            Guardrails.none(),
            Guardrails(feedback=1.0),
        )
    )
    weights = rng.choice(((2500, 2500, 2500), (500, 2500, 5000)))
    policy = CanaryPolicy(
        steps=tuple(CanaryStep(bps, 40) for bps in sorted(set(weights))),
        warm_up_s=(warm := rng.choice((0, 30))) * 20.0,
        warm_up_units=warm,
        block_size=rng.choice((7, 40, 100)),
        missing_s=rng.choice((200.0, 600.0)),
        guardrails=replace(guards, judge=1.25) if judged else guards,
        judge=JUDGE if judged else None,
    )
    span_s = rng.choice(SPANS_S)
    unanswered = rng.choice((0.0, 0.0, 0.3))
    bad = rng.choice((0.6, 0.9)) if harmed else 0.03
    requests = [
        ask(
            rng,
            f"caller {rng.randrange(KEYS) + day * KEYS // 2}",
            day,
            span_s,
            bad,
            weights,
        )
        for day in range(DAYS)
        for _ in range(rng.choice((60, 200)))
    ]
    requests.sort(key=lambda request: request.at_s)
    return DrawnCanary(policy, tuple(requests), harmed, unanswered, weights)


def ask(
    rng: random.Random,
    key: str,
    day: int,
    span_s: float,
    bad: float,
    weights: Sequence[int],
) -> Request:
    tools = rng.random() < 0.3
    streams = rng.random() < 0.5
    segments = (
        Segment.TOOLS if tools else Segment.NO_TOOLS,
        Segment.STREAM if streams else Segment.WHOLE,
        rng.choice((Segment.CHAT, Segment.MESSAGES)),
    )
    traits = RequestTraits.WORDS | RequestTraits.PRICED | RequestTraits.SERVED
    traits |= (RequestTraits.TOOLS if tools else 0) | (RequestTraits.STREAMS if streams else 0)
    traits |= RequestTraits.JUDGED if rng.random() < 0.4 else 0
    bits = sum(1 << SEGMENTS.index(segment) for segment in segments) << SEGMENTS_FROM
    failed = rng.random() < (bad if is_canary(key, weights[day]) else 0.03)
    lasts_s = rng.lognormvariate(1.0, 1.0)
    faults = rng.choice((0, 0, 0, AnswerFault.TRUNCATED.value, AnswerFault.REFUSED.value))
    values = SampleValues(lasts_s, lasts_s / 3, 0.01, rng.lognormvariate(4.0, 0.5), 0.001)
    return Request(
        key=key,
        at_s=day * DAY_S + 600.0 + rng.random() * span_s,
        # Of some no outcome ever comes.
        lasts_s=float("inf") if rng.random() < 0.02 else lasts_s,
        traits=int(traits) | bits,
        failed=failed,
        sample=GuardrailSample(SampleValues()) if failed else GuardrailSample(values, faults),
        feedback_s=rng.expovariate(1 / 20) if rng.random() < 0.2 else None,
        verdict_s=rng.expovariate(1 / 30) if rng.random() < 0.9 else None,
    )


def is_canary(key: str, weight_bps: int) -> bool:
    return random.Random(key).randrange(10_000) < weight_bps


class Process:
    """One router's process: its ledger, and what it has been told of its requests."""

    def __init__(
        self,
        name: str,
        drawn: DrawnCanary,
        pages: dict[int, bytes],
        failures: SharedFailures,
    ) -> None:
        self._failures = failures
        rule = build_exposure_rule(drawn.policy, START, ledger_salt="salt")
        # A worker has it from the routing table.
        self.rule = from_plain(ExposureRule, json.loads(json.dumps(to_plain(rule))))
        assert self.rule == rule
        self.ledger = Ledger("r", name, self.rule)
        self.blocks: list[ObservationBlock] = []
        self._drawn = drawn
        self._pages = pages
        self._units: dict[int, LedgerExposure | LaterTurn] = {}
        self._chance = random.Random(name)

    def begin(self, number: int, now: float) -> None:
        request = self._drawn.requests[number]
        bps = self._drawn.weights[int(now // DAY_S)]
        unit = self.ledger.admit(
            request.key,
            canary=is_canary(request.key, bps),
            weight_bps=bps,
            now=now,
            at=START + timedelta(seconds=now),
            traits=request.traits,
        )
        if unit is not None:
            self._units[number] = unit

    def go_on(
        self,
        number: int,
        what: str,
        now: float,
    ) -> None:
        if number not in self._units:
            return
        request = self._drawn.requests[number]
        unit = self._units[number]
        if isinstance(unit, LaterTurn):
            if what == "answer":
                outcome = outcome_of(failed=request.failed)
                self.ledger.finish(unit, outcome=outcome, now=now)
            return
        if what == "answer":
            outcome = outcome_of(failed=request.failed)
            self.ledger.finish(
                unit,
                outcome=outcome,
                sample=request.sample,
                now=now,
            )
        elif what == "feedback":
            self.ledger.note_feedback(unit, bad=request.failed, now=now)
        else:
            verdict = JudgeOutcome.BAD if request.failed else JudgeOutcome.GOOD
            self.ledger.judged(unit, verdict, 0.001)

    def tick(self, now: float, *, final: bool = False) -> None:
        at = START + timedelta(seconds=now)
        away = self._chance.random() < self._drawn.unanswered
        if not away:
            for late in self.ledger.late_claims:
                self._claim(late)
                self.ledger.forget_late_claim()
            for block in self.ledger.unclaimed(now, at, final=final):
                histories = self._claim(self.ledger.claim_of(block))
                self.ledger.enter_histories(block, histories)
            self._failures.exchange(self.ledger, now, at, final=final)
        self.blocks += self.ledger.close(now, at) if final else self.ledger.tick(now, at)

    def _claim(self, claim: KeyClaim) -> Sequence[KeyHistory]:
        changed, found = claim_keys(self._pages, claim)
        self._pages.update(changed)
        return found


def serve(drawn: DrawnCanary, processes: int) -> list[ObservationBlock]:
    pages: dict[int, bytes] = {}
    failures = SharedFailures()
    crew = [Process(f"w-{n}", drawn, pages, failures) for n in range(processes)]
    choose = random.Random(len(drawn.requests))
    of = [choose.choice(crew) for _ in drawn.requests]
    now = 0.0
    number = 1
    for now, what, which in events(drawn):
        if what == "tick":
            for process in crew:
                process.tick(now)
        elif what == "begin":
            of[which].begin(which, now)
        else:
            of[which].go_on(which, what, now)
    for process in crew:
        process.tick(now + 1.0, final=True)
    blocks = sorted(
        (block for process in crew for block in process.blocks),
        key=lambda block: (block.closed_at, block.worker, block.sequence),
    )
    return [replace(block, number=number + n) for n, block in enumerate(blocks)]


def events(drawn: DrawnCanary) -> Iterable[tuple[float, str, int]]:
    found = []
    for number, request in enumerate(drawn.requests):
        answered_s = request.at_s + request.lasts_s
        found += [
            (request.at_s, "begin", number),
            (answered_s, "answer", number),
        ]
        for what, after_s in (
            ("feedback", request.feedback_s),
            ("verdict", request.verdict_s),
        ):
            if after_s is not None:
                found.append((answered_s + after_s, what, number))
    ticks = {
        round(moment + after_s)
        for moment, *_ in found
        if moment < DAYS * DAY_S
        for after_s in (1.0, 61.0, 700.0)
    }
    found += [(float(second), "tick", 0) for second in ticks]
    return sorted(event for event in found if event[0] < DAYS * DAY_S)


def rollout(drawn: DrawnCanary) -> Rollout:
    return Rollout(
        id="r",
        proposal="p",
        route="x",
        incumbent="a",
        candidate="b",
        verdict="v",
        policy=drawn.policy,
        salt="s",
        step=0,
        state=RolloutState.MEASURING,
        started_at=START,
        step_started_at=START,
        updated_at=START,
    )


def decided(drawn: DrawnCanary, blocks: Sequence[ObservationBlock]) -> str:
    action = decide_action(rollout(drawn), blocks, START + timedelta(days=DAYS))
    return canonical_json(to_shown(action))


def counted(blocks: Sequence[ObservationBlock]) -> Mapping[int, tuple[int, int]]:
    units = Counter[int]()
    new = Counter[int]()
    for block in blocks:
        if block.late_of:
            continue
        units[block.period] += block.units
        new[block.period] += block.never_seen.units if block.never_seen else 0
    return {period: (units[period], new[period]) for period in units}


@pytest.mark.verify
def test_the_draws_hold_every_kind_of_canary_and_harm_is_told_from_health() -> None:
    canaries = [draw(seed) for seed in SEEDS]
    policies = [drawn.policy for drawn in canaries]

    for met in (
        [policy.judge is not None for policy in policies],
        [drawn.unanswered > 0.0 for drawn in canaries],
        [len(policy.steps) > 1 for policy in policies],
    ):
        assert {*met} == {True, False}
    ends = Counter(
        (
            drawn.harmed,
            decide_action(rollout(drawn), serve(drawn, 1), START).kind,
        )
        for drawn in canaries
    )
    assert ends[True, ActionKind.ROLLBACK] == sum(drawn.harmed for drawn in canaries)
    assert ends[False, ActionKind.ROLLBACK] == 0


@pytest.mark.parametrize("seed", SAMPLED)
def test_stored_blocks_of_every_combination_are_judged_to_the_same_bytes(seed: int) -> None:
    drawn = draw(seed)
    blocks = serve(drawn, 2)
    for block in blocks:
        check_block(block)
    stored = batch_from_json(batch_to_json(Batch(tuple(blocks), ())))
    policy = from_plain(CanaryPolicy, json.loads(json.dumps(to_plain(drawn.policy))))

    read = [
        replace(block, number=number) for number, block in enumerate(stored.blocks, start=1)
    ]
    assert policy == drawn.policy
    assert read == blocks
    assert decided(replace(drawn, policy=policy), read) == decided(drawn, blocks)
    assert decided(drawn, blocks[::-1]) == decided(drawn, blocks)


@pytest.mark.parametrize("seed", SAMPLED)
def test_a_block_says_what_its_policy_registered_and_nothing_else(seed: int) -> None:
    drawn = draw(seed)
    policy = drawn.policy
    blocks = serve(drawn, 1)
    told = [block.counts.get(Guardrail.ERRORS) for block in blocks]

    assert any(isinstance(errors, ErrorTally) and errors.segments for errors in told)
    assert {guardrail for block in blocks for guardrail in block.ranks} <= set(policy.tolerated)
    assert (Guardrail.JUDGE in {name for block in blocks for name in block.counts}) is bool(
        policy.judge
    )
    assert {block.weight_bps for block in blocks} <= set(drawn.weights)
    found = collect_evidence(blocks, policy)
    assert found.units == sum(block.units for block in blocks[: found.blocks])


@pytest.mark.parametrize("seed", SAMPLED)
def test_two_processes_count_the_callers_that_one_would_have_counted(seed: int) -> None:
    drawn = replace(draw(seed), unanswered=0.0)
    one = counted(serve(drawn, 1))
    two = counted(serve(drawn, 2))

    asked = [(1 + int(request.at_s // DAY_S), request.key) for request in drawn.requests]
    expected = Counter(period for period, _ in set(asked))
    assert {period: units for period, (units, _) in one.items()} == expected
    assert one == two
    assert sum(new for _, new in two.values()) == len({key for _, key in asked})


def record_all(seed: int) -> dict[str, str]:
    drawn = draw(seed)
    blocks = serve(drawn, 2)
    looks = {}
    for share in SHARES:
        seen = blocks[: 1 + int(share * (len(blocks) - 1))]
        now = seen[-1].closed_at
        action = decide_action(rollout(drawn), seen, now)
        told = explain_rollout(rollout(drawn), action, seen, now)
        found = [write_decision_figures(action), *explained_figures(told)]
        text = json.dumps(rounded(to_shown(found)), sort_keys=True)
        looks[str(share)] = f"{action.kind} {hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return looks


def explained_figures(told: RolloutExplanation) -> list[object]:
    """Returns the explanation's codes and figures; the sentences are in another golden file."""
    return [
        told.eta_s,
        told.units_per_hour,
        [(need.what, need.done, need.share, need.eta_s) for need in told.needs],
        [
            (row.exposures, row.log_e, row.distance, row.furthest, row.warns)
            for row in told.guardrails
        ],
    ]


@pytest.mark.parametrize("seed", SAMPLED)
def test_every_combination_is_decided_and_told_as_the_golden_file_says(seed: int) -> None:
    assert record_all(seed) == json.loads(GOLDEN.read_text(encoding="utf-8"))[str(seed)]


if __name__ == "__main__":
    lines = (f'"{seed}": {json.dumps(record_all(seed))}' for seed in SEEDS)
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
