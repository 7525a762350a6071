"""Triggers of proposals, rollouts, approvals and verdicts."""

# ruff: noqa: S608 - constants form these statements, never user input

from typing import Final

from harness.gate.online.rollout import TRANSITIONS, RolloutState
from harness.routing.records.proposals import (
    LIVE_STATE_VALUES,
    OPEN_PHASE_VALUES,
    PAST_GATE_VALUES,
    PROPOSAL_REGISTERED,
    ROLLOUT_REGISTERED,
)
from harness.store.guards.guard import busy, changes, listed, person, read_guards, taken

_LIVE: Final = f"IN ({listed(LIVE_STATE_VALUES)})"
_OPEN: Final = f"IN ({listed(OPEN_PHASE_VALUES)})"
_PAST_GATE: Final = f"IN ({listed(PAST_GATE_VALUES)})"
_RIVAL: Final = "t.selection = NEW.selection AND NEW.selection <> '' AND t.place <> NEW.place"
# A route may have one open proposal, or several of the same selection.
_BUSY: Final = f"""route_busy: the route has a proposal under way
        NEW.phase {_OPEN} AND EXISTS (SELECT 1 FROM proposal t WHERE t.route = NEW.route
        AND t.id <> NEW.id AND t.phase {_OPEN} AND NOT ({_RIVAL}))"""
_NEXT_STATES: Final = {
    state: sorted({after for (before, _), after in TRANSITIONS.items() if before is state})
    for state in RolloutState
}
_COMES_BACK: Final = " OR ".join(
    f"(OLD.state = '{state}' AND NEW.state NOT IN ({listed((state, *after))}))"
    for state, after in _NEXT_STATES.items()
)

DECISIONS: Final = read_guards(f"""
INSERT ON proposal
    {taken("proposal", "id")}
    {_BUSY}
    registered: a selection accepts no candidate after its measurement starts
        NEW.selection <> '' AND EXISTS (SELECT 1 FROM proposal t
        WHERE t.selection = NEW.selection AND t.phase <> 'proposed')
UPDATE ON proposal
    version_follows: a stored proposal's version rises by one
        NEW.version <> OLD.version + 1
    registered: what was registered does not change
        {changes(*PROPOSAL_REGISTERED)}
        OR {changes("proposer_principal", "proposer_key", "selection", "place")}
        OR (OLD.phase <> 'proposed' AND NEW.plans <> OLD.plans)
    {_BUSY}
    {busy("proposal", f"phase {_PAST_GATE}", "route")}
    registered: a change reference is set once, and not after the approval
        NEW.change_reference <> OLD.change_reference
        AND (OLD.change_reference <> '' OR OLD.approver IS NOT NULL)
    registered: a cost is accepted once, and not after the approval
        ({changes("accepted_cost")})
        AND (OLD.accepted_cost IS NOT NULL OR OLD.approver IS NOT NULL)
    four_eyes: relaxed rules need an approval by another principal
        NEW.widened <> '{{}}' AND NEW.phase IN ('canary', 'promoted')
        AND NOT EXISTS (SELECT 1 FROM approval a WHERE a.proposal = NEW.id
        AND a.verdict = NEW.verdict AND a.widened = NEW.widened
        AND a.name <> NEW.proposer AND a.principal <> NEW.proposer_principal)
DELETE ON proposal
    append_only: proposal is never deleted

INSERT ON rollout
    {taken("rollout", "id")}
    {busy("rollout", f"state {_LIVE}", "route")}
    verdict_used: a verdict can prove only one rollout
        EXISTS (SELECT 1 FROM rollout r WHERE r.verdict = NEW.verdict)
UPDATE ON rollout
    version_follows: a stored rollout's version rises by one
        NEW.version <> OLD.version + 1
    registered: what was registered does not change
        {changes(*ROLLOUT_REGISTERED)}
    ended: a rollout does not come back
        {_COMES_BACK}
    next_step: a rollout advances one step, after the route serves the new weight
        NEW.step <> OLD.step AND (NEW.step <> OLD.step + 1 OR NOT EXISTS (SELECT 1
        FROM route_version p JOIN proposal q ON q.id = NEW.proposal
        WHERE p.route = NEW.route AND p.rollout = NEW.id
        AND p.version = (SELECT MAX(l.version) FROM route_version l
        WHERE l.route = NEW.route)
        AND p.weight_bps = WEIGHT[q.policy, NEW.step]))
    {busy("rollout", f"state {_LIVE}", "route")}
DELETE ON rollout
    append_only: rollout is never deleted

INSERT ON approval
    {taken("approval", "id")}
    approval_of_verdict: the approval names a verdict of another proposal
        NEW.verdict IS NOT NULL AND NOT EXISTS (SELECT 1 FROM verdict v
        WHERE v.id = NEW.verdict AND v.proposal = NEW.proposal)
    four_eyes: the proposer cannot approve the proposal
        EXISTS (SELECT 1 FROM proposal p WHERE p.id = NEW.proposal
        AND p.proposer = NEW.name AND NOT p.self_approval)
    four_eyes: the person behind the proposer cannot approve the proposal
        EXISTS (SELECT 1 FROM proposal p WHERE p.id = NEW.proposal
        AND {person("p.proposer_principal")} = {person("NEW.principal")}
        AND NOT p.self_approval)
    four_eyes: the key belongs to another principal
        NEW.key IS NOT NULL AND NOT EXISTS (SELECT 1 FROM api_key k
        WHERE k.id = NEW.key AND k.principal = NEW.principal)
    change_missing: the policy asks for the reference of a change request
        NEW.change_reference = '' AND EXISTS (SELECT 1 FROM proposal p
        WHERE p.id = NEW.proposal AND CHANGE[p.policy])
    change_differs: the proposal names another change request
        EXISTS (SELECT 1 FROM proposal p WHERE p.id = NEW.proposal
        AND p.change_reference <> NEW.change_reference)

INSERT ON verdict
    {taken("verdict", "id")}
""")
