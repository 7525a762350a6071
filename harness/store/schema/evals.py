"""Tables of targets and suites (both named by a hash of their content), of eval runs with their
leases, and of the samples that the runs measured.
"""

import sqlalchemy as sa

from harness.domain.evals.run import RunState, SampleError
from harness.store.schema.columns import (
    added_count,
    amount,
    at_least,
    count,
    json_value,
    metadata,
    number,
    one_of,
    project,
    share,
    signature,
    text,
    time,
    words,
)

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
    project(),
    text("digest"),
    text("name"),
    text("version"),
    text("data_sha256"),
    text("scorer"),
    words("template"),
    count("items"),
    time("created_at"),
    sa.Column("texts", sa.Text, nullable=False, server_default=""),
    signature(),
    sa.PrimaryKeyConstraint("project", "digest"),
    at_least("items", 0),
)

eval_run = sa.Table(
    "eval_run",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    text("suite"),
    text("suite_digest"),
    sa.Column("target", sa.ForeignKey(target.c.id), nullable=False),
    # As text: a seed may have all of 64 bits, one more than a signed integer holds.
    text("order_seed"),
    count("epochs"),
    count("wanted"),
    text("state"),
    time("created_at"),
    count("max_tokens", nullable=True),
    number("max_cost_usd", nullable=True),
    text("lease_owner", nullable=True),
    time("lease_until", nullable=True),
    count("failures"),
    words("message"),
    text("fingerprint"),
    signature(),
    one_of("state", RunState),
    at_least("epochs", 1),
    at_least("wanted", 0),
    at_least("failures", 0),
    at_least("max_tokens", 0),
    amount("max_cost_usd"),
    sa.CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name="lease_whole"),
    sa.Index("ix_eval_run_created_at", "created_at", "id"),
    sa.Index("ix_eval_run_target", "target", "created_at"),
    sa.Index("ix_eval_run_fingerprint", "fingerprint", "created_at"),
    sa.Index("ix_eval_run_state", "state"),
    sa.Index("ix_eval_run_lease_owner", "lease_owner"),
)

# Scores never change and nothing is deleted (triggers). The key makes a second one impossible.
sample = sa.Table(
    "sample",
    metadata,
    sa.Column("run", sa.ForeignKey(eval_run.c.id), nullable=False),
    text("item"),
    count("epoch"),
    count("position"),
    words("answer"),
    number("strict", nullable=True),
    number("lenient", nullable=True),
    count("input_tokens"),
    count("output_tokens"),
    number("cost_usd", nullable=True),
    number("duration_s"),
    text("error", nullable=True),
    words("error_text"),
    words("served_model"),
    words("prompt"),
    words("rule"),
    added_count("cached_tokens"),
    added_count("judge_calls"),
    number("judge_cost_usd", nullable=True),
    words("served_build"),
    words("judge_model"),
    words("judge_build"),
    # Of the texts as they came: they outlive a blanking.
    text("answer_sha256", nullable=True),
    text("prompt_sha256", nullable=True),
    signature(),
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
