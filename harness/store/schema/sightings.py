"""Table of the models and builds that providers said they served for each target, with the
first and the last time of each.
"""

import sqlalchemy as sa

from harness.store.schema.columns import metadata, time

# A few rows for each target; the oldest give way. No foreign key: a judge's target is not
# registered, and a router may know one whose row has not come yet.
served_model = sa.Table(
    "served_model",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("build", sa.Text, primary_key=True),
    time("first_at"),
    time("last_at"),
    sa.CheckConstraint("first_at <= last_at", name="in_order"),
)
