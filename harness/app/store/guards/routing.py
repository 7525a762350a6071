"""Triggers of route versions, fallback chains, evidence, waivers, break-glass, proposals,
rollouts, approvals and verdicts.
"""

# ruff: noqa: S608 - constants form these statements, never user input

from datetime import timedelta

# ruff: noqa: S608 - constants form these statements, never user input
from typing import Final

from harness.app.store.guards.guard import busy, changes, listed, person, read_guards, taken
from harness.gate.online.rollout import TRANSITIONS, RolloutState
from harness.routing.evidence import LONGEST
from harness.routing.records.proposals import (
    LIVE_STATE_VALUES,
    OPEN_PHASE_VALUES,
    PAST_GATE_VALUES,
    PROPOSAL_REGISTERED,
    ROLLOUT_REGISTERED,
)

_LONGEST_US: Final = LONGEST // timedelta(microseconds=1)
_ASKED: Final = (
    "id",
    "route",
    "incumbent",
    "target",
    "reason",
    "through_freeze",
    "proposer",
    "proposer_principal",
    "proposer_key",
    "created_at",
    "confirm_by",
    "expires_at",
)
_CONFIRMED: Final = (
    "confirmer",
    "confirmer_principal",
    "confirmer_key",
    "confirmed_at",
    "waiver",
)
_CONFIRMS: Final = "NEW.confirmed_at IS NOT NULL AND OLD.confirmed_at IS NULL"


def _is_person(role: str) -> str:
    return (
        f"EXISTS (SELECT 1 FROM principal q WHERE q.id = NEW.{role}_principal"
        " AND q.kind IN ('person', 'local'))"
    )


def _has_key(role: str) -> str:
    return (
        f"(NEW.{role}_key IS NULL OR EXISTS (SELECT 1 FROM api_key k"
        f" WHERE k.id = NEW.{role}_key AND k.principal = NEW.{role}_principal))"
    )


BREAK_GLASSES: Final = read_guards(f"""
INSERT ON break_glass
    {taken("break_glass", "id")}
    {busy("break_glass", "ended_at IS NULL", "route")}
    break_glass_asked: a break-glass is requested before it is confirmed or ends
        NEW.confirmed_at IS NOT NULL OR NEW.ended_at IS NOT NULL
    break_glass_ends: a break-glass lasts at most seven days
        NEW.expires_at <= NEW.created_at
        OR NEW.expires_at > NEW.created_at + {_LONGEST_US}
        OR NEW.confirm_by > NEW.expires_at
    four_eyes: a person must request a break-glass with their own key
        NOT {_is_person("proposer")} OR NOT {_has_key("proposer")}
UPDATE ON break_glass
    append_only: an ended break-glass does not change
        OLD.ended_at IS NOT NULL
    append_only: the content of a break-glass request does not change
        {changes(*_ASKED)}
    append_only: a break-glass is confirmed once
        OLD.confirmed_at IS NOT NULL AND ({changes(*_CONFIRMED)})
    four_eyes: another person must confirm a break-glass with their own key
        {_CONFIRMS} AND ({person("NEW.confirmer_principal")}
        = {person("NEW.proposer_principal")}
        OR NOT {_is_person("confirmer")} OR NOT {_has_key("confirmer")}
        OR NEW.confirmer_key = NEW.proposer_key)
    break_glass_late: a break-glass is confirmed before it expires or ends
        {_CONFIRMS} AND (NEW.ended_at IS NOT NULL
        OR NEW.confirmed_at < NEW.created_at
        OR NEW.confirmed_at >= NEW.confirm_by)
    waiver_missing: a confirmed break-glass needs its own waiver for the same time
        {_CONFIRMS} AND (NOT EXISTS (SELECT 1 FROM waiver w
        WHERE w.id = NEW.waiver AND w.route = NEW.route AND w.target = NEW.target
        AND w.expires_at = NEW.expires_at) OR EXISTS (SELECT 1
        FROM break_glass o WHERE o.waiver = NEW.waiver AND o.id <> NEW.id))
DELETE ON break_glass
    append_only: break_glass is never deleted
""")


_PREVIOUS: Final = (
    "FROM route_version p WHERE p.route = NEW.route AND p.version = NEW.version - 1"
)
_SAME_CANARY: Final = " AND ".join(
    f"COALESCE(p.{name}, '') = COALESCE(NEW.{name}, '')"
    for name in ("canary", "canary_evidence", "salt", "rollout", "unit_rule")
)
_PROVEN: Final = "NEW.kind IN ('canary', 'promotion')"
# True for a verdict without the approval that its policy or widened rules require.
_UNAPPROVED: Final = (
    "EXISTS (SELECT 1 FROM verdict v JOIN proposal q ON q.id = v.proposal"
    " WHERE v.id = NEW.verdict_id AND (ASKS[q.policy] OR q.widened <> '{}')"
    " AND NOT EXISTS (SELECT 1 FROM approval a WHERE a.verdict = v.id"
    " AND a.proposal = q.id AND a.kind = 'canary'))"
)
_LIVE: Final = f"IN ({listed(LIVE_STATE_VALUES)})"
_CHAIN: Final = (
    "FROM route_fallback {0} WHERE {0}.route = NEW.route AND {0}.version = NEW.version"
)
_CHAIN_NOW: Final = _CHAIN.format("n")
_CHAIN_BEFORE: Final = f"{_CHAIN.format('o')} - 1"
_FROZEN: Final = (
    "EXISTS (SELECT 1 FROM switch f WHERE (f.route IS NULL OR f.route = NEW.route)"
    " AND f.kind = 'freeze' AND f.lifted_at IS NULL"
    " AND COALESCE(f.starts_at, f.created_at) <= NEW.at AND NEW.at < f.expires_at)"
)
# Only a break-glass gives an incumbent a waiver as its evidence.
_BY_WAIVER: Final = (
    "EXISTS (SELECT 1 FROM evidence e"
    " WHERE e.id = NEW.incumbent_evidence AND e.kind = 'waiver')"
)
_BREAK_GLASS: Final = (
    "EXISTS (SELECT 1 FROM break_glass b JOIN evidence e"
    " ON e.waiver_id = b.waiver WHERE b.id = NEW.break_glass AND b.route = NEW.route"
    " AND e.id = NEW.incumbent_evidence AND b.target = NEW.incumbent"
)

_VERSIONS: Final = read_guards(f"""
INSERT ON route_version
    {taken("route_version", "route", "version")}
    revision_follows: revisions rise by one, from above a floor
        NEW.revision <> 1 + (SELECT CASE WHEN m.revision_floor > n.newest
        THEN m.revision_floor ELSE n.newest END FROM meta m CROSS JOIN
        (SELECT COALESCE(MAX(v.revision), 0) AS newest FROM route_version v) n)
    baseline_evidence: a first version needs baseline evidence
        NEW.version = 1 AND NOT EXISTS (SELECT 1 FROM evidence e
        WHERE e.id = NEW.incumbent_evidence
        AND e.kind = 'baseline')
    incumbent_evidence: an incumbent that stays keeps its evidence
        NEW.kind IN ('canary', 'weight', 'abort', 'settings') AND NOT EXISTS (SELECT 1
        {_PREVIOUS} AND p.incumbent = NEW.incumbent
        AND p.incumbent_evidence = NEW.incumbent_evidence)
    proof_is_evidence: a promoted target's evidence is its verdict
        NEW.kind = 'promotion' AND NOT EXISTS (SELECT 1 FROM evidence e
        WHERE e.id = NEW.incumbent_evidence
        AND e.verdict_id = NEW.verdict_id)
    proof_is_evidence: a canary's evidence is its verdict
        NEW.kind = 'canary' AND NOT EXISTS (SELECT 1 FROM evidence e
        WHERE e.id = NEW.canary_evidence
        AND e.verdict_id = NEW.verdict_id)
    one_canary: the route has a canary already
        NEW.kind = 'canary' AND NOT EXISTS (SELECT 1 {_PREVIOUS} AND p.canary IS NULL)
    weight_rises: only the weight of the same canary rises
        NEW.kind = 'weight' AND NOT EXISTS (SELECT 1 {_PREVIOUS} AND {_SAME_CANARY}
        AND p.weight_bps < NEW.weight_bps)
    canary_stays: a change of settings does not change the canary
        NEW.kind = 'settings' AND NOT EXISTS (SELECT 1 {_PREVIOUS} AND {_SAME_CANARY}
        AND p.weight_bps = NEW.weight_bps)
    nothing_to_abort: there is no canary
        NEW.kind = 'abort' AND NOT EXISTS (SELECT 1 {_PREVIOUS} AND p.canary IS NOT NULL)
    never_incumbent: only a former incumbent of this route is restored
        NEW.kind = 'restore' AND NEW.break_glass IS NULL
        AND NOT EXISTS (SELECT 1 FROM route_version f
        WHERE f.route = NEW.route AND f.version < NEW.version
        AND f.incumbent = NEW.incumbent
        AND f.incumbent_evidence = NEW.incumbent_evidence)

INSERT ON route_version AS route_version_links
    chain_stays: only a change of settings changes the chain
        NEW.kind NOT IN ('baseline', 'settings') AND
        ((SELECT count(*) {_CHAIN_NOW}) <> (SELECT count(*) {_CHAIN_BEFORE})
        OR EXISTS (SELECT 1 {_CHAIN_NOW} AND NOT EXISTS (SELECT 1 {_CHAIN_BEFORE}
        AND o.position = n.position AND o.target = n.target
        AND o.evidence = n.evidence)))
    waiver_expired: a waiver of the chain has expired
        NEW.kind IN ('baseline', 'settings') AND EXISTS (SELECT 1
        FROM route_fallback n JOIN evidence e
        ON e.id = n.evidence
        JOIN waiver w ON w.id = e.waiver_id
        WHERE n.route = NEW.route AND n.version = NEW.version
        AND w.expires_at <= NEW.at)

INSERT ON route_version AS route_version_bake_guard
    holdback_whole: a holdback has a share and a rollout
        (NEW.holdback IS NULL) <> (NEW.holdback_plan IS NULL)
    holdback_is_the_last: a promotion holds back the previous incumbent
        NEW.kind = 'promotion' AND NEW.holdback IS NOT NULL
        AND NEW.holdback <> NEW.prev_incumbent
    holdback_stays: only a promotion holds a target back
        NEW.kind <> 'promotion' AND NEW.holdback IS NOT NULL
        AND NOT (NEW.kind = 'settings' AND EXISTS (SELECT 1 {_PREVIOUS}
        AND p.holdback = NEW.holdback AND p.holdback_plan = NEW.holdback_plan))
    bake_first: the bake time of the last promotion has not ended
        NEW.kind = 'canary' AND EXISTS (SELECT 1
        {_PREVIOUS} AND p.holdback IS NOT NULL)
""")

# Foreign keys enforce the first two rules as well, but SQLite can turn foreign keys off.
_PROOF: Final = read_guards(f"""
INSERT ON route_version AS route_version_proof_guard
    evidence_missing: no such evidence of this route and incumbent
        NOT EXISTS (SELECT 1 FROM evidence e WHERE e.id = NEW.incumbent_evidence
        AND e.route = NEW.route AND e.target = NEW.incumbent)
    verdict_missing: no passed verdict of this route, incumbent and candidate
        {_PROVEN} AND NOT EXISTS (SELECT 1 FROM verdict v
        WHERE v.id = NEW.verdict_id AND v.route = NEW.route
        AND v.incumbent = NEW.prev_incumbent AND v.candidate = NEW.verdict_candidate
        AND v.outcome = 'passed')
    verdict_expired: the verdict has expired, or its time is in the future
        {_PROVEN} AND EXISTS (SELECT 1 FROM verdict v WHERE v.id = NEW.verdict_id
        AND (NEW.at < v.decided_at OR NEW.at >= v.expires_at))
    time_follows: the version is older than the previous version
        {_PROVEN} AND EXISTS (SELECT 1 {_PREVIOUS} AND p.at > NEW.at)
    verdict_used: a verdict can prove only one canary and one promotion
        {_PROVEN} AND (EXISTS (SELECT 1 FROM route_version o
        WHERE o.route = NEW.route AND o.kind = NEW.kind
        AND o.verdict_id = NEW.verdict_id) OR EXISTS (SELECT 1 FROM rollout r
        WHERE r.verdict = NEW.verdict_id AND r.state = 'rolled_back'))
    approval_missing: the proposal's policy asks for an approval of this verdict
        {_PROVEN} AND {_UNAPPROVED}
    frozen: the route is frozen; no canary opens or advances, and no target is promoted
        NEW.kind IN ('canary', 'weight', 'promotion') AND {_FROZEN}
    first_step: a canary opens with its rollout, at its policy's first step
        NEW.kind = 'canary' AND NOT EXISTS (SELECT 1 FROM rollout r
        JOIN proposal q ON q.id = r.proposal WHERE r.id = NEW.rollout
        AND r.verdict = NEW.verdict_id AND r.route = NEW.route
        AND r.incumbent = NEW.incumbent AND r.candidate = NEW.canary
        AND r.salt = NEW.salt AND r.state = 'waiting' AND r.step = 0
        AND NEW.weight_bps = WEIGHT[q.policy, 0])
    next_step: a canary's weight rises to its policy's next step
        NEW.kind = 'weight' AND NOT EXISTS (SELECT 1 FROM rollout r
        JOIN proposal q ON q.id = r.proposal WHERE r.id = NEW.rollout
        AND r.state {_LIVE} AND NEW.weight_bps = WEIGHT[q.policy, r.step + 1])
    last_step: a promotion follows its canary's last step or a person's approval
        NEW.kind = 'promotion' AND NOT EXISTS (SELECT 1 FROM rollout r
        JOIN proposal q ON q.id = r.proposal
        JOIN route_version p ON p.rollout = r.id
        WHERE p.route = NEW.route AND p.version = NEW.version - 1
        AND p.canary = NEW.incumbent AND r.verdict = NEW.verdict_id
        AND r.state {_LIVE}
        AND ((r.state = 'measuring' AND r.step = STEPS[q.policy] - 1
        AND p.weight_bps = WEIGHT[q.policy, r.step])
        OR EXISTS (SELECT 1 FROM approval a WHERE a.verdict = r.verdict
        AND a.proposal = q.id AND a.kind = 'promotion')))

INSERT ON route_version AS route_version_break_glass
    break_glass_named: only an incumbent by waiver names a break-glass
        (NEW.break_glass IS NOT NULL) <> {_BY_WAIVER}
    break_glass_missing: no confirmed, current break-glass of this route allows this incumbent
        NEW.kind = 'restore' AND NEW.break_glass IS NOT NULL
        AND NOT {_BREAK_GLASS} AND b.incumbent = NEW.prev_incumbent
        AND b.ended_at IS NULL AND b.confirmed_at <= NEW.at
        AND NEW.at < b.expires_at)
    break_glass_stays: a break-glass serves only its confirmed target, and only once
        NEW.break_glass IS NOT NULL AND (NEW.kind NOT IN ('restore', 'settings')
        OR (NEW.kind = 'restore' AND EXISTS (SELECT 1 FROM route_version o
        WHERE o.route = NEW.route AND o.break_glass = NEW.break_glass))
        OR (NEW.kind = 'settings' AND NOT EXISTS (SELECT 1
        {_PREVIOUS} AND p.break_glass = NEW.break_glass)))
    frozen: the route is frozen, and the break-glass does not include `through_freeze`
        NEW.kind = 'restore' AND NEW.break_glass IS NOT NULL AND {_FROZEN}
        AND NOT {_BREAK_GLASS} AND b.through_freeze)
""")

_EVIDENCE: Final = read_guards(f"""
INSERT ON route_fallback
    sealed: the version is stored, and its chain cannot change
        EXISTS (SELECT 1 FROM route_version v
        WHERE v.route = NEW.route AND v.version = NEW.version)
    {taken("route_fallback", "route", "version", "position")}
    evidence_missing: no such evidence of this route and target
        NOT EXISTS (SELECT 1 FROM evidence e WHERE e.id = NEW.evidence
        AND e.route = NEW.route AND e.target = NEW.target)
    baseline_evidence: only targets of the first version have baseline evidence
        NEW.version > 1
        AND EXISTS (SELECT 1 FROM evidence e
        WHERE e.id = NEW.evidence
        AND e.kind = 'baseline')
        AND NOT EXISTS (SELECT 1 FROM route_version v WHERE v.route = NEW.route
        AND v.version = 1 AND v.incumbent_evidence = NEW.evidence)
        AND NOT EXISTS (SELECT 1 FROM route_fallback f WHERE f.route = NEW.route
        AND f.version = 1 AND f.evidence = NEW.evidence)

INSERT ON evidence
    {taken("evidence", "id")}
    baseline_late: the route has versions; a new target needs a verdict or a waiver
        NEW.kind = 'baseline'
        AND EXISTS (SELECT 1 FROM route_version v WHERE v.route = NEW.route)
    proof_missing: no such verdict or waiver of this route and target
        (NEW.kind = 'verdict' AND NOT EXISTS (SELECT 1 FROM verdict v
        WHERE v.id = NEW.verdict_id AND v.route = NEW.route
        AND v.incumbent = NEW.verdict_incumbent AND v.candidate = NEW.target
        AND v.outcome = 'passed'))
        OR (NEW.kind = 'waiver' AND NOT EXISTS (SELECT 1 FROM waiver w
        WHERE w.id = NEW.waiver_id AND w.route = NEW.route
        AND w.target = NEW.target))
INSERT ON evidence AS evidence_approval_guard
    approval_missing: the proposal asks for an approval, and its verdict has no approval
        NEW.kind = 'verdict' AND {_UNAPPROVED}
    change_missing: the policy asks for a change request, and the proposal names no request
        NEW.kind = 'verdict' AND
        EXISTS (SELECT 1 FROM verdict v JOIN proposal q ON q.id = v.proposal
        WHERE v.id = NEW.verdict_id AND CHANGE[q.policy] AND q.change_reference = '')

INSERT ON waiver
    {taken("waiver", "id")}
""")

ROUTING: Final = (
    *_VERSIONS,
    *_PROOF,
    *BREAK_GLASSES,
    *_EVIDENCE,
)


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
    registered: the same model is confirmed once, and not after the approval
        ({changes("same_model")})
        AND (OLD.same_model IS NOT NULL OR OLD.approver IS NOT NULL)
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
