"""Valid domain records with sensible values, for tests of the store."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from harness.app.store.store import Store
from harness.frame.people.access import ApiKey
from harness.frame.records.transaction import Transaction
from harness.gate.online.guardrails import (
    ArmLevels,
    FailureTally,
    Guardrail,
    Guardrails,
)
from harness.gate.online.observation import ObservationBlock, TrafficMinute
from harness.gate.online.rollout import (
    Rollout,
    RolloutState,
    build_exposure_rule,
)
from harness.gate.policy import CanaryPolicy, CanaryStep, Policy
from harness.gate.run import EvalRun, RunBudget, RunState, Sample
from harness.gate.suite_plan import Claim, SuitePin, SuitePlan, SuiteRole
from harness.gate.verdict import Failed, Passed, SuiteReport, Verdict
from harness.providers.credential import Credential
from harness.providers.models.capabilities import Capabilities
from harness.providers.records import Targets
from harness.providers.target import Price, Provider, RequestPatch, Target
from harness.routing.proposal import (
    Approval,
    ApprovalKind,
    Proposal,
    ProposalPhase,
    SuiteRuns,
)
from harness.routing.records.proposals import Approvals, Proposals, Rollouts
from harness.routing.records.routes import Routing
from harness.routing.records.verdicts import Verdicts
from harness.routing.route_changes import (
    CreateRoute,
    PromoteCanary,
    StartCanary,
)
from harness.routing.route_settings import (
    OnBadEvent,
    OnContentPolicy,
    OnEmptyAnswer,
    RouteSettings,
    RouteSuite,
    Stakes,
    StreamCommit,
)

NOW = datetime(2026, 11, 20, 9, 30, 15, 123456, tzinfo=UTC)
LATER = NOW + timedelta(days=14)
ROUTE = "triage"

OLD = Target("sim", "old-1")
NEW = Target("sim", "new-1", {"temperature": 0.2, "stop": ["\n"]})
SPARE = Target(
    "other",
    "spare",
    request_patch=RequestPatch({"seed": 7}, "Answer in JSON."),
)

SETTINGS = RouteSettings(
    description="Which team answers?",
    stakes=Stakes.HIGH,
    policy="default",
    suites=(RouteSuite("tickets"), RouteSuite("json", SuiteRole.REQUIRED)),
    total_timeout_s=12.5,
    on_content_policy=OnContentPolicy.FALLBACK,
    keep_warm_bps=100,
    side_effects=True,
    capable=(SPARE.id,),
    data_class="personal",
    first_token_timeout_s=45.0,
    first_byte_timeout_s=60.0,
    commit=StreamCommit.WHOLE,
    on_bad_event=OnBadEvent.SKIP,
    on_empty_answer=OnEmptyAnswer.ACCEPT,
    comparable_vectors=True,
)
# Who may see that class.
CLEARED = {"personal": frozenset({OLD.provider, SPARE.provider})}
RULE = build_exposure_rule(CanaryPolicy(block_size=50), NOW)

PLAN = SuitePlan(
    suite="tickets",
    suite_digest="d" * 64,
    role=SuiteRole.PRIMARY,
    claim=Claim.SUPERIOR,
    margin=0.05,
    alpha=0.05,
    n_max=400,
    epochs=1,
    order_seed=2**63 + 1,
)
POLICY = Policy(
    name="careful",
    approval_ttl_s=3600.0,
    canary=CanaryPolicy(
        steps=(CanaryStep(100, 10), CanaryStep(500, 20, certify=True)),
        guardrails=Guardrails(latency=2.0, feedback=False),
    ),
)
PIN = SuitePin("tickets", "3", "a" * 64, "label", "Which team?\n{input}", 400)
PROVIDER = Provider(
    name="sim",
    kind="openai",
    api_base="http://127.0.0.1:9000/v1",
    api_key_env="SIM_KEY",
    extra_headers={"x-team": "support"},
    prices={"old-1": Price(1.0, 2.5)},
    more_api_key_envs=("SIM_KEY_2",),
    models={"old-1": Capabilities(tools=False, context_window=8000)},
    sealed_headers={"x-team-key": "ciphertext"},
    extra_body={"provider": {"order": ["a"]}},
)
CREDENTIAL = Credential("sim", "first", "ciphertext", 0, NOW, NOW, "ada")
RUN = EvalRun(
    id="r_1",
    suite="tickets",
    suite_digest=PIN.digest,
    target=OLD.id,
    order_seed=2**63 + 1,
    epochs=1,
    wanted=100,
    state=RunState.QUEUED,
    created_at=NOW,
    budget=RunBudget(max_tokens=10_000, max_cost_usd=2.5),
)
# With nothing that could be left out, for a test that says what matters to it.
PLAIN_RUN = EvalRun("run-1", "s", "d", "t", 1, 1, 1, RunState.RUNNING, NOW)
PLAIN_SAMPLE = Sample("run-1", "q0", 1, 0, "", 1.0, 1.0, 1, 1, None, 0.1)
PLAIN_BLOCK = ObservationBlock("r", "w", 1, 100, 100, 1, 0, 0, 0, NOW, NOW)
SAMPLE = Sample(
    run=RUN.id,
    item="i1",
    epoch=0,
    position=0,
    answer="billing",
    strict=1.0,
    lenient=1.0,
    input_tokens=20,
    output_tokens=3,
    cost_usd=0.25,
    duration_s=0.75,
    served_model="old-1",
    served_build="fp_1",
    judge_model="judge-1",
    judge_build="fp_2",
)
KEY = ApiKey(
    "k_1",
    "web shop",
    "a" * 64,
    "wxyz",
    None,
    frozenset({"triage", "answers"}),
    NOW,
)
BLOCK = ObservationBlock(
    rollout="ro_1",
    worker="w1",
    sequence=1,
    weight_bps=100,
    units=100,
    canary_units=2,
    failures=3,
    canary_failures=1,
    missing=0,
    opened_at=NOW,
    closed_at=NOW + timedelta(seconds=9),
    period=2,
    counts={Guardrail.JSON_VALIDITY: FailureTally(60, 2, 3, 1)},
    ranks={Guardrail.LATENCY: (0.1, 1 / 3)},
    levels={Guardrail.LATENCY: ArmLevels(0.5, 0.75)},
)
TRAFFIC = TrafficMinute(
    route=ROUTE,
    minute=NOW.replace(second=0, microsecond=0),
    worker="w1",
    arm="incumbent",
    target=OLD.id,
    revision=1,
    requests=10,
    failed=1,
    charged=2,
    streams=3,
    input_tokens=400,
    output_tokens=50,
    cost_usd=0.125,
    latency_ms={100: 9, -1: 1},
)


def proposal(id_: str = "p_1", **changes: Any) -> Proposal:
    built = Proposal(
        id=id_,
        route=ROUTE,
        incumbent=OLD.id,
        candidate=NEW.id,
        claim=Claim.SUPERIOR,
        reason="cheaper",
        proposer="ada",
        policy=POLICY,
        plans=(PLAN,),
        phase=ProposalPhase.PROPOSED,
        created_at=NOW,
        updated_at=NOW,
        runs={"tickets": SuiteRuns("r_1", "r_2")},
        retry_at=LATER,
    )
    return replace(built, **changes)


REPORT = SuiteReport(
    suite="tickets",
    role=SuiteRole.PRIMARY,
    claim=Claim.SUPERIOR,
    margin=0.05,
    outcome="passed",
    how="early",
    n_used=120,
    n_max=400,
    delta=0.08,
    ci_low=0.01,
    ci_high=None,
    ci_method="tango",
    log_e_bad=float("-inf"),
    p_final=None,
    wins=20,
    ties=90,
    losses=10,
    reason="better",
    flags=("few_losses",),
    details={"alpha_early": 0.01},
)


V = TypeVar("V", bound=Verdict)


def verdict(
    kind: type[V],
    id_: str = "v_1",
    **changes: Any,
) -> V:
    fields = {
        "id": id_,
        "route": ROUTE,
        "incumbent": OLD.id,
        "candidate": NEW.id,
        "reason": "12 of 100 better",
        "suites": (REPORT,),
        "inputs": {
            "pairs": [["i1", 0.0, 1.0]],
            "runs": {"tickets": ["r_1", "r_2"]},
        },
        "decided_at": NOW,
        "expires_at": LATER,
    }
    return kind(**{**fields, **changes})


PASSED = verdict(Passed)
FAILED = verdict(Failed, "v_failed", reason="worse")


def rollout(id_: str = "ro_1", **changes: Any) -> Rollout:
    built = Rollout(
        id=id_,
        proposal="p_1",
        route=ROUTE,
        incumbent=OLD.id,
        candidate=NEW.id,
        verdict="v_1",
        policy=POLICY.canary,
        salt="salt",
        step=0,
        state=RolloutState.WAITING,
        started_at=NOW,
        step_started_at=NOW,
        updated_at=NOW,
    )
    return replace(built, **changes)


def create_route(tx: Transaction, name: str = ROUTE) -> int:
    for target in (OLD, NEW, SPARE):
        Targets(tx).add(target)
    change = CreateRoute(name, OLD.id, (SPARE.id,), SETTINGS)
    return Routing(tx).commit(
        change,
        expected_version=0,
        actor="ada",
        reason="new",
        now=NOW,
    )


def seeded(store: Store, policy: Policy = POLICY) -> None:
    with store.write() as tx:
        create_route(tx)
        Proposals(tx).add(proposal(policy=policy))
        Verdicts(tx).store(PASSED, "p_1")


def start_canary(
    tx: Transaction,
    proof: Passed = PASSED,
    *,
    version: int = 1,
) -> int:
    if not Rollouts(tx).list():
        Rollouts(tx).add(rollout())
    change = StartCanary(proof.route, proof, "ro_1", 100, "salt", RULE)
    return Routing(tx).commit(
        change,
        expected_version=version,
        actor="swapproof",
        reason="passed",
        now=NOW,
    )


def promote(tx: Transaction, *, version: int = 2) -> int:
    word = Approval("a_1", "p_1", PASSED.id, ApprovalKind.PROMOTION, "pr_bob", "bob", NOW)
    Approvals(tx).add(word)
    return Routing(tx).commit(
        PromoteCanary(ROUTE, PASSED),
        expected_version=version,
        actor="bob",
        reason="why not",
        now=NOW,
    )
