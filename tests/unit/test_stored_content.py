"""Every place of content is named once."""

from collections.abc import Mapping

import pytest
import sqlalchemy as sa

from harness.domain.privacy.stored_content import COLUMNS, USERS
from harness.store.schema import metadata
from harness.store.schema.columns import Day, UtcTime

pytestmark = pytest.mark.req("G4")

# Columns of text, by table, that hold what operators wrote, names, ids, hashes and figures.
OTHER_COLUMNS: Mapping[str, str] = {
    "agent": "id name model fallback_model data_class owner_key",
    "agent_grant": "id agent session target target_name kind granted_by granted_with "
    "reason data_class request signature",
    "agent_message": "session id turn role state response_to model_requested route "
    "target request_id fallback_from reason",
    "agent_session": "id agent model state parent",
    "agent_switch": "id agent session targets state decided_by decided_with decision_reason",
    "agent_turn": "id session owner client key request_hash state",
    "alert": "id kind subject key title sources notified",
    "api_key": "id name hash hint routes limits principal created_by created_with "
    "opt_outs signature",
    "approval": "id proposal verdict kind principal name key reason widened change_reference "
    "signature",
    "asked_name": "route name",
    "audit_event": "actor action subject details previous mac principal key",
    "break_glass": "id route incumbent target reason proposer proposer_principal "
    "proposer_key confirmer confirmer_principal confirmer_key waiver ended_because signature",
    "block": "rollout worker counts ranks levels never_seen",
    "captured": "id route request endpoint arm target data_class rules redactions",
    "credential": "provider name ciphertext created_by signature",
    "dashboard_session": "id principal key created_by created_with link_hash cookie_hash "
    "signature",
    "delivery": "alert sink message title text last_error",
    "discovered_model": "provider model source price",
    "drift_check": "watch run state served scores evidence",
    "drift_watch": "id target suite suite_digest state opened_by reason",
    "eval_run": "id suite suite_digest target order_seed state lease_owner fingerprint "
    "signature",
    "evidence": "id route target kind verdict_id verdict_incumbent verdict_outcome "
    "waiver_id signature",
    "failover": "worker request route arm target provider failure code place endpoint "
    "next_target",
    "idempotent_request": "scope key request_hash owner body",
    "key_spend": "key worker",
    "manifest": "digest signature revoked log_end",
    "meta": "installation",
    "person_link": "id principal person reason created_by created_with signature",
    "principal": "id kind name folded issuer subject signature",
    "observation_batch": "id",
    "proposal": "id route incumbent candidate claim reason proposer policy plans phase "
    "runs verdict rollout approver approved_verdict closed_because widened proposer_principal "
    "proposer_key selection change_reference signature",
    "provider": "name kind api_base api_key_env extra_headers prices more_api_key_envs models "
    "extra_body sealed_headers moved_by moved_because signature",
    "provider_check": "provider kind target findings",
    "rollout": "id proposal route incumbent candidate verdict policy salt state "
    "ended_because signature",
    "route_fallback": "route target evidence",
    "route_freeze": "id route reason actor lifted_by signature",
    "route_version": "route kind incumbent incumbent_evidence canary canary_evidence "
    "salt rollout unit_rule handover settings prev_incumbent verdict_id verdict_candidate "
    "verdict_outcome actor reason holdback holdback_plan break_glass prev_signature signature",
    "sample": "run item error served_model rule served_build judge_model judge_build finish "
    "answer_sha256 prompt_sha256 signature",
    "seen_keys": "rollout",
    "served_model": "target model build",
    "shadow": "id route incumbent candidate data_class proposal reason started_by ended_by "
    "ended_because signature",
    "shadow_tally": "shadow worker counts sums",
    "sign_in": "provider id ciphertext signed_in_by refused",
    "spending_month": "purpose",
    "suite": "digest name version data_sha256 scorer template texts signature",
    "switch": "id route kind name reason actor source lifted_by signature",
    "target": "id provider model parameters request_patch signature",
    "traffic": "route worker arm target latency_ms",
    "traffic_day": "route worker arm target",
    "traffic_hour": "route worker arm target latency_ms",
    "verdict": "id proposal route incumbent candidate outcome reason suites inputs signature",
    "waiver": "id route target reason author signature",
}


def test_each_column_that_can_hold_text_is_classified() -> None:
    listed = [(row.table, row.column) for row in (*COLUMNS, *USERS)]
    listed += [
        (table, name) for table, names in OTHER_COLUMNS.items() for name in names.split()
    ]
    stored = [
        (table.name, column.name)
        for table in metadata.tables.values()
        for column in table.columns
        if not isinstance(column.type, sa.BigInteger | sa.Boolean | sa.Double | Day | UtcTime)
    ]
    assert sorted(listed) == sorted(stored)
