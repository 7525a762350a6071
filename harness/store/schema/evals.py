"""Tables of targets and suites (both named by a hash of their content), of eval runs with their
leases, and of the samples that the runs measured; their rows as domain objects and back.
"""

from typing import Final

import sqlalchemy as sa

from harness.domain.content_hash import hash_content
from harness.domain.drift import DriftCheck
from harness.domain.evals.run import EvalRun, RunState, Sample, SampleError
from harness.domain.evals.suite_plan import SuitePin
from harness.domain.operations.keyring import KeyPurpose
from harness.domain.routing.target import Target
from harness.store.schema.columns import (
    added_count,
    amount,
    at_least,
    one_of,
    share,
    storable,
    text,
    time,
    unique_where,
)
from harness.store.schema.signed_tables import sign_rows_of
from harness.store.schema.stored_row import record

# Append-only (trigger): the id is the hash of the content.
TARGET: Final = record(
    Target, "target", text("id"), signed=True, also=lambda one: {"id": one.id}
)
target = TARGET.table

# Append-only (trigger): the digest is the hash of the content.
SUITE: Final = record(
    SuitePin,
    "suite",
    text("digest"),
    time("created_at"),
    sa.Column("texts", sa.Text, nullable=False, server_default=""),
    at_least("items", 0),
    key="digest",
    signed=True,
    free="template",
    also=lambda pin: {"digest": pin.digest},
)
suite = SUITE.table

EVAL_RUN: Final = record(
    EvalRun,
    "eval_run",
    # As text: a seed may have all of 64 bits, one more than a signed integer holds.
    text("order_seed"),
    text("fingerprint"),
    one_of("state", RunState),
    at_least("epochs", 1),
    *(at_least(column, 0) for column in ("wanted", "failures", "max_tokens")),
    amount("max_cost_usd"),
    sa.CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name="lease_whole"),
    sa.Index("ix_eval_run_created_at", "created_at", "id"),
    sa.Index("ix_eval_run_target", "target", "created_at"),
    sa.Index("ix_eval_run_target_suite", "target", "suite", "created_at", "id", "state"),
    sa.Index("ix_eval_run_fingerprint", "fingerprint", "created_at"),
    sa.Index("ix_eval_run_state", "state", "created_at", "id"),
    sa.Index("ix_eval_run_lease_owner", "lease_owner"),
    refers={"target": target},
    signed=True,
    free="message",
    flat="budget",
    also=lambda run: {"fingerprint": run.fingerprint},
)
# Workers take and leave runs, without the signing key.
eval_run = sign_rows_of(
    EVAL_RUN.table,
    changing=(
        *("wanted", "state", "lease_owner", "lease_until", "failures", "message"),
        *("waits_since", "retry_at", "patience_since"),
    ),
)

# Scores never change and nothing is deleted (triggers). The key makes a second one impossible.
SAMPLE: Final = record(
    Sample,
    "sample",
    added_count("cached_tokens"),
    added_count("judge_calls"),
    # Of the texts as they came: they outlive a blanking.
    text("answer_sha256", nullable=True),
    text("prompt_sha256", nullable=True),
    share("strict"),
    share("lenient"),
    # SQLite stores NaN as NULL, and a CHECK passes on NULL: no score needs its reason.
    sa.CheckConstraint("strict IS NOT NULL OR error IS NOT NULL", name="scored_or_error"),
    one_of("error", SampleError),
    *(at_least(column, 0) for column in ("position", "input_tokens", "output_tokens")),
    *(at_least(column, 0) for column in ("cached_tokens", "judge_calls")),
    *(amount(column) for column in ("cost_usd", "judge_cost_usd", "duration_s")),
    sa.Index("ix_sample_run_position", "run", "position", "epoch"),
    key="run item epoch",
    refers={"run": eval_run},
    signed=True,
    free=(
        "answer error_text served_model prompt rule served_build judge_model judge_build finish"
    ),
    also=lambda one: text_digests(one.answer, one.prompt),
)
# The texts may be blanked; their digests stay.
sample = sign_rows_of(
    SAMPLE.table,
    purpose=KeyPurpose.WORKER,
    changing=("answer", "prompt"),
    decides=False,
)


def text_digests(answer: str, prompt: str) -> dict[str, str]:
    """SHA-256 of a sample's texts as they are stored; they outlive the texts."""
    return {
        "answer_sha256": hash_content(storable(answer)),
        "prompt_sha256": hash_content(storable(prompt)),
    }


IS_OPEN = sa.text("number = 0 AND closed_at IS NULL")

# A target and suite has one open baseline, and a watch one running check, whichever process
# starts it.
DRIFT_CHECK: Final = record(
    DriftCheck,
    "drift_check",
    sa.UniqueConstraint("watch", "number"),
    at_least("number", 0),
    at_least("items", 1),
    at_least("epochs", 1),
    sa.CheckConstraint("alpha > 0 AND alpha < 1", name="alpha_share"),
    sa.CheckConstraint("closed_at IS NULL OR number = 0", name="closed_baseline"),
    unique_where("uq_drift_check_open", IS_OPEN, "target", "suite"),
    unique_where("uq_drift_check_running", sa.text("ended_at IS NULL"), "watch"),
    key="run",
    refers={"run": eval_run, "target": target},
    free="started_by reason message",
    flat="plan",
)
drift_check = DRIFT_CHECK.table
