"""Tables of targets and suites (both named by a hash of their content), of eval runs with their
leases, and of the samples that the runs measured; their rows as domain objects and back.
"""

from typing import Final

import sqlalchemy as sa

from harness.domain.content_hash import hash_content
from harness.domain.evals.run import EvalRun, RunState, Sample, SampleError
from harness.domain.evals.suite_plan import SuitePin
from harness.domain.routing.target import Target
from harness.store.schema.columns import (
    added_count,
    amount,
    at_least,
    columns_of,
    json_value,
    metadata,
    one_of,
    share,
    signature,
    storable,
    text,
    time,
)
from harness.store.schema.stored_row import Record

# Append-only (trigger): the id is the hash of the content.
target = sa.Table(
    "target",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    text("provider"),
    text("model"),
    json_value("parameters"),
    json_value("request_patch"),
    signature(),
)

# Append-only (trigger): the digest is the hash of the content.
suite = sa.Table(
    "suite",
    metadata,
    *columns_of(
        SuitePin,
        sa.Column("digest", sa.Text, primary_key=True),
        time("created_at"),
        sa.Column("texts", sa.Text, nullable=False, server_default=""),
        signature(),
        free=("template",),
    ),
    at_least("items", 0),
)

eval_run = sa.Table(
    "eval_run",
    metadata,
    *columns_of(
        EvalRun,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("target", sa.ForeignKey(target.c.id), nullable=False),
        # As text: a seed may have all of 64 bits, one more than a signed integer holds.
        text("order_seed"),
        text("fingerprint"),
        signature(),
        free=("message",),
        flat=("budget",),
    ),
    one_of("state", RunState),
    at_least("epochs", 1),
    at_least("wanted", 0),
    at_least("failures", 0),
    at_least("max_tokens", 0),
    amount("max_cost_usd"),
    sa.CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name="lease_whole"),
    sa.Index("ix_eval_run_created_at", "created_at", "id"),
    sa.Index("ix_eval_run_target", "target", "created_at"),
    sa.Index("ix_eval_run_target_suite", "target", "suite", "created_at", "id", "state"),
    sa.Index("ix_eval_run_fingerprint", "fingerprint", "created_at"),
    sa.Index("ix_eval_run_state", "state", "created_at", "id"),
    sa.Index("ix_eval_run_lease_owner", "lease_owner"),
)

# Scores never change and nothing is deleted (triggers). The key makes a second one impossible.
sample = sa.Table(
    "sample",
    metadata,
    *columns_of(
        Sample,
        sa.Column("run", sa.ForeignKey(eval_run.c.id), nullable=False),
        added_count("cached_tokens"),
        added_count("judge_calls"),
        # Of the texts as they came: they outlive a blanking.
        text("answer_sha256", nullable=True),
        text("prompt_sha256", nullable=True),
        signature(),
        free=(
            "answer",
            "error_text",
            "served_model",
            "prompt",
            "rule",
            "served_build",
            "judge_model",
            "judge_build",
            "finish",
        ),
    ),
    sa.PrimaryKeyConstraint("run", "item", "epoch"),
    share("strict"),
    share("lenient"),
    # SQLite stores NaN as NULL, and a CHECK passes on NULL: no score needs its reason.
    sa.CheckConstraint("strict IS NOT NULL OR error IS NOT NULL", name="scored_or_error"),
    one_of("error", SampleError),
    at_least("position", 0),
    at_least("input_tokens", 0),
    at_least("output_tokens", 0),
    at_least("cached_tokens", 0),
    at_least("judge_calls", 0),
    amount("cost_usd"),
    amount("judge_cost_usd"),
    amount("duration_s"),
    sa.Index("ix_sample_run_position", "run", "position", "epoch"),
)


def text_digests(answer: str, prompt: str) -> dict[str, str]:
    """SHA-256 of a sample's texts as they are stored; they outlive the texts."""
    return {
        "answer_sha256": hash_content(storable(answer)),
        "prompt_sha256": hash_content(storable(prompt)),
    }


EVAL_RUN: Final = Record.by_fields(
    eval_run, EvalRun, also=lambda run: {"fingerprint": run.fingerprint}
)
SAMPLE: Final = Record.by_fields(
    sample, Sample, also=lambda one: text_digests(one.answer, one.prompt)
)
SUITE: Final = Record.by_fields(suite, SuitePin, also=lambda pin: {"digest": pin.digest})
TARGET: Final = Record.by_fields(target, Target, also=lambda one: {"id": one.id})
