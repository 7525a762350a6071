"""Database triggers that enforce the safety rules beyond a CHECK of a single row.

Each module holds the triggers of one subject as plain SQL. docs/reference/triggers.md lists
them for reviewers; `swapproof docs generate` writes it.
"""

from collections.abc import Mapping
from itertools import chain
from typing import Final

from harness.app.store.guards import (
    agents,
    break_glass,
    evidence,
    exposures,
    fallback_chains,
    history,
    interventions,
    measurements,
    people,
    proposals,
    rollouts,
    route_proofs,
    route_versions,
)
from harness.app.store.guards.refusing_trigger import RefusingTrigger, append_only
from harness.app.store.tables import APPEND_ONLY

BY_SUBJECT: Final[Mapping[str, tuple[RefusingTrigger, ...]]] = {
    "Routing versions": route_versions.TRIGGERS,
    "Fallback chains": fallback_chains.TRIGGERS,
    "Proof of canaries and promotions": route_proofs.TRIGGERS,
    "Break-glass": break_glass.TRIGGERS,
    "Evidence, waivers and verdicts": evidence.TRIGGERS,
    "Proposals and approvals": proposals.TRIGGERS,
    "Rollouts": rollouts.TRIGGERS,
    "Callers of canaries": exposures.TRIGGERS,
    "Audit log and history": history.TRIGGERS,
    "Kill switches, freezes and shadows": interventions.TRIGGERS,
    "Samples, targets and suites": measurements.TRIGGERS,
    "People and keys": people.TRIGGERS,
    "Agents": agents.TRIGGERS,
    # `sample` is not here: it has its own triggers, because retention blanks its texts.
    "Append-only tables": (
        *append_only("target", "model = 'another'"),
        *append_only("suite", "items = 1"),
        *append_only("verdict", "outcome = 'passed'"),
        *append_only("approval", "name = 'eve'"),
        *append_only("waiver", "expires_at = expires_at + 1"),
        *append_only("evidence", "target = 't_new'"),
        *append_only("route_version", "weight_bps = 10000"),
        *append_only("route_fallback", "target = 't_new'"),
        *append_only("block", "canary_failures = 0"),
        *append_only("audit_event", "actor = 'ada'"),
        *append_only("person_link", "person = 'pr_eve'"),
        *append_only("labelling", "people = '[]'"),
        *append_only("label_draw", "item = 'another'"),
        *append_only("label", "preference = 1.0"),
        *append_only("shadow_score", "high = 1.0"),
    ),
}
REFUSING: Final = tuple(chain.from_iterable(BY_SUBJECT.values()))

# Tables whose rows are deleted only after the end of their rollout.
KEPT_UNTIL_END: Final = ("exposure", "exposure_event", "exposure_count", "exposure_arrival")

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
    *KEPT_UNTIL_END,
)

# On SQLite, a trigger ignores a duplicate row without an error, because INSERT OR REPLACE would
# overwrite the first row. PostgreSQL needs no such trigger.
KEPT: Final = {
    "sample": ("t.run = NEW.run AND t.item = NEW.item AND t.epoch = NEW.epoch",),
    "block": (
        "t.rollout = NEW.rollout AND t.number = NEW.number",
        "t.rollout = NEW.rollout AND t.worker = NEW.worker AND t.sequence = NEW.sequence",
    ),
    "exposure": ("t.rollout = NEW.rollout AND t.number = NEW.number",),
    "exposure_event": ("t.rollout = NEW.rollout AND t.number = NEW.number",),
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
# The condition on the counted rows of a table. A freeze is not counted, because routers do not
# use it.
COUNTED_ROWS: Final = {"switch": "NEW.kind <> 'freeze'"}

__all__ = [
    "BY_SUBJECT",
    "COUNTED",
    "COUNTED_ROWS",
    "KEPT",
    "KEPT_UNTIL_END",
    "NEVER_EMPTIED",
    "REFUSING",
    "RefusingTrigger",
]
