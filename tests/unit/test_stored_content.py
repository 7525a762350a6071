from collections.abc import Mapping
from typing import Final

import pytest
import sqlalchemy as sa

from docs_reference.stored_content import COLUMNS, USERS
from harness.app.store.tables import metadata
from harness.frame.records.columns import Day, UtcTime

pytestmark = pytest.mark.req("G4")

# Columns of text that hold names, ids, hashes, figures and operators' words in every table.
PLAIN: Final = """
    accepted_cost account acknowledged bets bounds by_key capped outcomes rates uncounted
    usual_rates waits decided ending
    action actor agent alert answer_sha256 api_base api_key_env approved_verdict approver
    arm author because break_glass build canary canary_evidence candidate change_reference
    choice design items labelling people seed step pair series terms
    ciphertext claim client closed_because code confirmer confirmer_key confirmer_principal
    cookie_hash counts created_by created_with cron data_class data_sha256 decided_by
    decided_with decision_reason details digest ended_because ended_by endpoint evidence
    extra_body extra_headers failure fallback_from fallback_model findings fingerprint
    finish folded granted_by granted_with handover hash hint holdback holdback_plan id
    incumbent incumbent_evidence inputs installation issuer item job judge_build judge_model key
    kind last_error latency_ms lease_owner levels lifted_by limits link_hash log_end mac
    made model models more_api_key_envs moved_because moved_by name never_seen next_target
    notified on_better opt_outs order_seed outcome owner owner_key parameters
    parent person phase place plans policy prev_incumbent prev_signature previous price
    prices principal prompt_sha256 proposal proposals proposer proposer_key
    proposer_principal provider purpose ranks redactions refused replacement request
    request_hash request_id request_patch response_to revoked role rollout route router routes
    rule rules run runs salt same_model scope scorer scores sealed_headers selection served
    served_build served_model session settings shadow signature signed_in_by sink source sources
    started_by state subject suite suite_digest suites sums target target_name targets
    template texts title turn unit_rule verdict verdict_candidate verdict_id
    verdict_incumbent verdict_outcome version waiting waiver waiver_id watch widened worker
"""
# Columns that hold content in another table, by the tables where they hold none.
ELSEWHERE: Final[Mapping[str, str]] = {
    "reason": "agent_grant agent_message approval break_glass drift_check exposure_count "
    "exposure_event person_link proposal route_version shadow shadow_score switch verdict "
    "waiver",
    "model_requested": "agent_message",
    "message": "delivery",
    "text": "delivery",
    "error": "sample",
}

# Columns of hashes that are stored as numbers.
NUMBERS: Final = (
    ("exposure", "caller"),
    ("exposure_event", "question_hash"),
    ("exposure_event", "text_hash"),
)


def test_each_column_that_can_hold_text_is_classified() -> None:
    content = [(row.table, row.column) for row in (*COLUMNS, *USERS)]
    elsewhere = [
        (table, name) for name, tables in ELSEWHERE.items() for table in tables.split()
    ]
    plain = {*PLAIN.split()}
    assert not plain & {column for _, column in content}
    for table, column in NUMBERS:
        assert isinstance(metadata.tables[table].c[column].type, sa.BigInteger)
    stored = [
        (table.name, column.name)
        for table in metadata.tables.values()
        for column in table.columns
        if not isinstance(
            column.type,
            sa.BigInteger | sa.Boolean | sa.Double | Day | UtcTime,
        )
    ]
    assert sorted([*content, *elsewhere]) == sorted(
        [*((table, column) for table, column in stored if column not in plain), *NUMBERS]
    )
    assert {column for _, column in stored} >= plain
