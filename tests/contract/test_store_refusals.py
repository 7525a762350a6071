import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from typing import Any, Final

import pytest
import sqlalchemy as sa

from harness.app.store.store import Store
from harness.evals.records import Drift
from harness.frame.alerts.records import Alerts
from harness.frame.errors import InputError
from harness.frame.people.limits import KeySpend
from harness.frame.records.transaction import RowRefused, Transaction
from harness.gate.online.guardrails import (
    ArmLevels,
    ArmSplit,
    ErrorTally,
    FailureTally,
    FeedbackTally,
    Guardrail,
    JudgeTally,
)
from harness.gate.online.observation import NeverSeen
from harness.operations.records import Captures
from harness.providers.force import SwitchSource
from harness.providers.records import Targets
from harness.routing.records.failovers import Failovers
from harness.routing.records.interventions import Shadows, Switches
from harness.routing.records.observations import Observations
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts
from harness.routing.shadow import ShadowLimits
from tests.contract import test_store_alerts as alerts
from tests.contract import test_store_drift as drift
from tests.contract import test_store_observations as observations
from tests.contract import test_store_routing as switches
from tests.contract import test_store_shadows as shadows
from tests.support.store.records import (
    BLOCK,
    NEW,
    NOW,
    OLD,
    PASSED,
    RUN,
    SAMPLE,
    TRAFFIC,
    seeded,
)

pytestmark = pytest.mark.both_databases

SPEND = KeySpend("k_1", date(2026, 3, 1), "w", 1, 1, 1.0, 0)
NAN = math.nan
INF = math.inf
Changes = tuple[dict[str, Any], ...]
CONTRADICTIONS: Changes = (
    {"canary_failures": 3},
    {"canary_units": 101},
    {"failures": 101},
    {"missing": 101},
    {"weight_bps": 10_001},
    {"failures": 0},
    {"period": 0},
    {"counts": {Guardrail.REFUSALS: FailureTally(100, 3, 0, 0)}},
    {"counts": {Guardrail.REFUSALS: FailureTally(100, 2, 1, 2)}},
    {"counts": {Guardrail.ERRORS: ErrorTally(100, 2, 2, 1)}},
    {"counts": {Guardrail.ERRORS: ErrorTally(100, 2, 3, 1, {"server": ArmSplit(4, 1)})}},
    {"counts": {Guardrail.ERRORS: ErrorTally(100, 2, 3, 1, {"server": ArmSplit(1, 2)})}},
    {"counts": {Guardrail.ERRORS: ErrorTally(100, 2, 3, 1, {"server": ArmSplit(3, 0)})}},
    {"counts": {Guardrail.JUDGE: JudgeTally(50, 2, 3, 1, ArmSplit(4, 1))}},
    {"counts": {Guardrail.JUDGE: JudgeTally(50, 2, 3, 1, ArmSplit(2, 2))}},
    {"counts": {Guardrail.JUDGE: JudgeTally(50, 2, 3, 1, ArmSplit(1, 1), -0.1)}},
    {"counts": {Guardrail.FEEDBACK: FeedbackTally(50, 2, 3, 1, ArmSplit(3, 3))}},
    {"ranks": {Guardrail.LATENCY: (1.5,)}},
    {"ranks": {Guardrail.LATENCY: (NAN,)}},
    {"levels": {Guardrail.LATENCY: ArmLevels(0.0, 1.0)}},
    {"never_seen": NeverSeen(101, 2, 3, 1)},
    {"never_seen": NeverSeen(50, 2, 3, 0)},
    {"never_seen": NeverSeen(98, 0, 0, 0)},
    {"never_seen": NeverSeen(50, 1, 3, 2)},
    {"never_seen": NeverSeen(50, 1, 1, 1, {Guardrail.REFUSALS: FailureTally(50, 2, 1, 1)})},
    {"never_seen": NeverSeen(50, 1, 1, 1, {}, {Guardrail.LATENCY: (-0.5,)})},
    {"never_seen": NeverSeen(50, 1, 1, 1, bets={Guardrail.LIMITS: (1.5,)})},
    {"outcomes": {"answered": ArmSplit(99, 2)}},
    {"outcomes": {"answered": ArmSplit(100, 1)}},
    {
        "outcomes": {
            "answered": ArmSplit(100, 2),
            "failed: provider": ArmSplit(-1, 0),
        }
    },
    {"outcomes": {"thanked": ArmSplit(100, 2)}},
    {
        "outcomes": {
            "answered": ArmSplit(98, 2),
            "not_measured: missing": ArmSplit(2, 0),
        }
    },
    {"uncounted": {"max_keys": ArmSplit(1, 2)}},
    {"bets": {Guardrail.LIMITS: (-1.2,)}},
    {"bets": {Guardrail.LIMITS: (NAN,)}},
    {"by_key": {"k_1": {Guardrail.LEAVING: FailureTally(100, 3, 0, 0)}}},
    {"by_key": {f"k_{n}": {} for n in range(33)}},
    {"served": {"m": ArmSplit(99, 2), "n": ArmSplit(2, 0)}},
    {"waits": {"first_s": INF}},
    {"counts": {Guardrail.ERRORS: ErrorTally(100, 2, 3, 1, unknown=ArmSplit(98, 0))}},
)
# By kind of record: how it is stored, a good one, and changes that make no sense of it.
NONSENSE: Final[Mapping[str, tuple[Callable[[Transaction, Any], object], Any, Changes]]] = {
    "block": (
        lambda tx, row: Observations(tx).append([row], []),
        BLOCK,
        CONTRADICTIONS,
    ),
    "traffic": (
        lambda tx, row: Observations(tx).append([], [row]),
        TRAFFIC,
        ({"requests": -1},),
    ),
    "spend": (
        lambda tx, row: Observations(tx).append([], [], [row]),
        SPEND,
        ({"cost_usd": NAN}, {"tokens": -1}),
    ),
    "failover": (
        lambda tx, row: Failovers(tx).append([row]),
        alerts.ROW,
        ({"latency_ms": NAN}, {"body_bytes": -1}),
    ),
    "captured": (
        lambda tx, row: Captures(tx).store(row, most_per_day=10),
        observations.ONE,
        (
            {"expires_at": NOW},
            {"rules": ""},
            {"share_bps": 0},
            {"content": {"n": NAN}},
        ),
    ),
    "sample": (
        lambda tx, row: EvalRuns(tx).store_sample(row),
        SAMPLE,
        (
            {"strict": NAN},
            {"strict": 1.5},
            {"lenient": -0.1},
            {"strict": None},
            {"cost_usd": INF},
            {"cost_usd": NAN},
            {"duration_s": -1.0},
            {"input_tokens": -1},
        ),
    ),
    "switch": (
        lambda tx, row: Switches(tx).add(row),
        switches.SWITCH,
        ({"reason": " "}, {"source": SwitchSource.ENVIRONMENT}),
    ),
    "shadow": (
        lambda tx, row: Shadows(tx).add(row),
        shadows.SHADOW,
        (
            {"limits": ShadowLimits(share_bps=0)},
            {"limits": ShadowLimits(usd_per_day=NAN)},
            {"limits": ShadowLimits(requests_per_day=0)},
            {"expires_at": NOW},
            {"incumbent": NEW.id},
            {"reason": " "},
            {"proposal": "nobody-knows"},
        ),
    ),
    "verdict": (
        lambda tx, row: Verdicts(tx).store(row, "p_1"),
        replace(PASSED, id="v_2"),
        ({"inputs": {"delta": NAN}},),
    ),
    "tally": (
        lambda tx, row: Shadows(tx).append([row]),
        shadows.TALLY,
        ({"sums": {"similarity": NAN}}, {"shadow": "x"}),
    ),
}


@pytest.mark.req("B9", "F3", "F8", "F9")
def test_a_record_that_makes_no_sense_is_refused(store: Store) -> None:
    seeded(store)
    with store.write() as tx:
        EvalRuns(tx).add(RUN)
    for kind, (write, good, changes) in NONSENSE.items():
        for change in changes:
            why = "contradict" if kind == "block" else None
            with pytest.raises(InputError, match=why), store.write() as tx:
                write(tx, replace(good, **change))
    with store.write() as tx:
        for write, good, _ in NONSENSE.values():
            write(tx, good)


NO_SENSE = "refuses"
APPEND_ONLY = "append_only"
REWRITES: Final[Mapping[str, str]] = {
    "UPDATE switch SET name = 'another' WHERE id = 'sw_1'": APPEND_ONLY,
    "UPDATE switch SET route = 'chat', lifted_at = 1, lifted_by = 'eve' WHERE id = 'sw_1'": (
        APPEND_ONLY
    ),
    "UPDATE switch SET lifted_at = NULL, lifted_by = NULL WHERE id = 'sw_2'": APPEND_ONLY,
    "UPDATE switch SET lifted_by = 'eve' WHERE id = 'sw_2'": APPEND_ONLY,
    "DELETE FROM switch": APPEND_ONLY,
    "UPDATE drift_check SET number = 1, closed_at = 5": NO_SENSE,
    "UPDATE drift_check SET alpha = 1": NO_SENSE,
    "UPDATE drift_check SET run = 'r_9'": NO_SENSE,
    "UPDATE shadow SET share_bps = 10000": NO_SENSE,
    "UPDATE shadow SET candidate = incumbent": NO_SENSE,
    "DELETE FROM shadow": NO_SENSE,
    "INSERT INTO shadow SELECT * FROM shadow": NO_SENSE,
    "INSERT INTO alert SELECT 'al_2', kind, subject, key, title, text, first_seen, last_seen,"
    " count, sources, resolved_at, notified, notified_at, messages, returned, details"
    " FROM alert": NO_SENSE,
}


@pytest.mark.req("B9", "B11", "F7", "F8")
def test_the_database_refuses_to_rewrite_what_was_decided(store: Store) -> None:
    with store.write() as tx:
        for target in (OLD, NEW):
            Targets(tx).add(target)
        EvalRuns(tx).add(RUN)
        Drift(tx).start(drift.CHECK)
        Shadows(tx).add(shadows.SHADOW)
        Alerts(tx).fold([alerts.OPENED])
        Switches(tx).add(switches.SWITCH)
        Switches(tx).add(switches.ON_ROUTE)
        Switches(tx).lift("sw_2", actor="ben", now=NOW)
    for statement, why in REWRITES.items():
        with pytest.raises(RowRefused, match=why), store.write() as tx:
            tx.write(sa.text(statement))
