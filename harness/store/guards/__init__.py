"""The database's triggers keep the rules of the promise that a CHECK of one row cannot.

A rule is a condition over NEW (and OLD) under which the database refuses a row. Its name
begins the message, so that callers can tell a lost race from a missing proof.

Some words stand for SQL that differs between the databases. ASKS[policy]: the policy asks for
an approval. CHANGE[policy]: it asks for a change request. STEPS[policy]: the number of canary
steps. WEIGHT[policy, step]: a step's weight. LENGTH[text]: the length of a JSON array.
"""

from typing import Final

from harness.store.guards.guard import Guard
from harness.store.guards.operations import OPERATIONS
from harness.store.guards.proposals import DECISIONS
from harness.store.guards.routing import ROUTING
from harness.store.tables import APPEND_ONLY

# Whole tables that only grow; a sample's texts may be blanked.
_GROWING: Final = tuple(table.name for table in APPEND_ONLY if table.name != "sample")

GUARDS: Final[tuple[Guard, ...]] = (
    *ROUTING,
    *DECISIONS,
    *OPERATIONS,
    *(
        Guard(
            f"{table}_no_{event.lower()}",
            table,
            event,
            ((f"append_only: {table} is never changed or deleted", "1 = 1"),),
        )
        for table in _GROWING
        for event in ("UPDATE", "DELETE")
    ),
)

# PostgreSQL's TRUNCATE is no DELETE.
NEVER_EMPTIED: Final = (
    *(table.name for table in APPEND_ONLY),
    "proposal",
    "rollout",
    "switch",
    "route_freeze",
    "break_glass",
    "shadow",
    "agent_switch",
    "agent_grant",
)

# A second one is left out without an error, as ON CONFLICT DO NOTHING would: SQLite only,
# where INSERT OR REPLACE would put it in the first one's place.
KEPT: Final = {
    "sample": ("t.run = NEW.run AND t.item = NEW.item AND t.epoch = NEW.epoch",),
    "block": (
        "t.rollout = NEW.rollout AND t.number = NEW.number",
        "t.rollout = NEW.rollout AND t.worker = NEW.worker AND t.sequence = NEW.sequence",
    ),
}

# These events change a snapshot without a revision: `meta.changes` counts them, for the etag.
COUNTED: Final = {
    "provider": ("INSERT", "UPDATE", "DELETE"),
    "api_key": ("INSERT", "UPDATE", "DELETE"),
    "principal": ("INSERT", "UPDATE", "DELETE"),
    "credential": ("INSERT", "UPDATE", "DELETE"),
    "switch": ("INSERT", "UPDATE"),
    "shadow": ("INSERT", "UPDATE"),
    "agent_grant": ("INSERT", "UPDATE"),
}

__all__ = ["COUNTED", "GUARDS", "KEPT", "NEVER_EMPTIED", "Guard"]
