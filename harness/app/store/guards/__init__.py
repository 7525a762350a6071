"""Database triggers that enforce the safety rules beyond a CHECK of a single row.

The database refuses a row if the condition of a rule over NEW and OLD is true. The message
begins with the rule's name, so that callers can distinguish a lost race from a missing proof.

These macros expand to SQL that differs between the databases:
ASKS[policy]: whether the policy requires an approval.
CHANGE[policy]: whether the policy requires a change request.
STEPS[policy]: the number of canary steps.
WEIGHT[policy, step]: the weight of a step.
LENGTH[text]: the length of a JSON array.
"""

from typing import Final

from harness.app.store.guards.guard import Guard
from harness.app.store.guards.operations import OPERATIONS
from harness.app.store.guards.routing import DECISIONS, ROUTING
from harness.app.store.tables import APPEND_ONLY

# Append-only tables. `sample` has its own rule, because retention blanks its texts.
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
            (
                (
                    f"append_only: {table} is never changed or deleted",
                    "1 = 1",
                ),
            ),
        )
        for table in _GROWING
        for event in ("UPDATE", "DELETE")
    ),
)

# Tables that refuse TRUNCATE, because PostgreSQL runs no DELETE trigger for it.
NEVER_EMPTIED: Final = (
    *(table.name for table in APPEND_ONLY),
    "proposal",
    "rollout",
    "switch",
    "break_glass",
    "shadow",
    "agent_switch",
    "agent_grant",
)

# Only on SQLite, a trigger ignores a duplicate row without an error, because INSERT OR REPLACE
# would overwrite the first row.
KEPT: Final = {
    "sample": ("t.run = NEW.run AND t.item = NEW.item AND t.epoch = NEW.epoch",),
    "block": (
        "t.rollout = NEW.rollout AND t.number = NEW.number",
        "t.rollout = NEW.rollout AND t.worker = NEW.worker AND t.sequence = NEW.sequence",
    ),
}

# Events that change a snapshot without a new revision. `meta.changes` counts them for the ETag.
COUNTED: Final = {
    "provider": ("INSERT", "UPDATE", "DELETE"),
    "api_key": ("INSERT", "UPDATE", "DELETE"),
    "principal": ("INSERT", "UPDATE", "DELETE"),
    "credential": ("INSERT", "UPDATE", "DELETE"),
    "switch": ("INSERT", "UPDATE"),
    "shadow": ("INSERT", "UPDATE"),
    "agent_grant": ("INSERT", "UPDATE"),
}
# The condition on counted rows of a table; routers do not serve from a freeze.
COUNTED_ROWS: Final = {"switch": "NEW.kind <> 'freeze'"}

__all__ = [
    "COUNTED",
    "COUNTED_ROWS",
    "GUARDS",
    "KEPT",
    "NEVER_EMPTIED",
    "Guard",
]
