"""Rows that promote a model and look honest: a database cannot tell them from true ones. They
are not signed, and the router refuses them.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

# What honest work would have left: a passed verdict, its evidence, a rollout, its canary, a
# person's early promotion, and the promotion.
FORGERY: Sequence[str] = (
    """
INSERT INTO verdict (id, proposal, route, incumbent, candidate, outcome, reason, suites, inputs,
  decided_at, expires_at)
SELECT 'v_forged', q.id, v.route, v.incumbent, :candidate, 'passed', 'it is better', '[]', '{}',
  v.at, v.at + 864000000000
FROM route_version v JOIN proposal q ON q.id = :proposal
WHERE v.route = :route ORDER BY v.version DESC LIMIT 1""",
    """
INSERT INTO evidence (id, route, target, kind, verdict_id, verdict_incumbent, verdict_outcome,
  created_at)
SELECT 'e_forged', route, candidate, 'verdict', id, incumbent, outcome, decided_at
FROM verdict WHERE id = 'v_forged'""",
    """
INSERT INTO rollout (id, proposal, route, incumbent, candidate, verdict, policy, salt, step,
  state, started_at, step_started_at, updated_at, ended_because, version)
SELECT 'ro_forged', q.id, v.route, v.incumbent, v.candidate, v.id,
  json_extract(q.policy, '$.canary'), 'salt', 0, 'waiting', v.decided_at, v.decided_at,
  v.decided_at, '', 1
FROM verdict v JOIN proposal q ON q.id = v.proposal WHERE v.id = 'v_forged'""",
    """
INSERT INTO route_version (route, version, revision, kind, incumbent, incumbent_evidence,
  canary, canary_evidence, weight_bps, salt, rollout, unit_rule, settings, prev_version,
  prev_incumbent, verdict_id, verdict_candidate, verdict_outcome, at, actor, reason)
SELECT p.route, p.version + 1, (SELECT max(revision) + 1 FROM route_version), 'canary',
  p.incumbent, p.incumbent_evidence, r.candidate, 'e_forged',
  json_extract(r.policy, '$.steps[0].weight_bps'), r.salt, r.id, '{}', p.settings, p.version,
  p.incumbent, r.verdict, r.candidate, 'passed', p.at, 'mallory', 'because I can'
FROM route_version p JOIN rollout r ON r.id = 'ro_forged'
WHERE p.route = :route ORDER BY p.version DESC LIMIT 1""",
    """
INSERT INTO approval (id, proposal, verdict, kind, principal, name, reason, at)
SELECT 'a_forged', proposal, id, 'promotion', 'mallory', 'mallory', 'because I can', decided_at
FROM verdict WHERE id = 'v_forged'""",
    """
INSERT INTO route_version (route, version, revision, kind, incumbent, incumbent_evidence,
  weight_bps, settings, prev_version, prev_incumbent, verdict_id, verdict_candidate,
  verdict_outcome, at, actor, reason)
SELECT route, version + 1, revision + 1, 'promotion', canary, 'e_forged', 0, settings, version,
  incumbent, verdict_id, verdict_candidate, 'passed', at, 'mallory', 'because I can'
FROM route_version WHERE route = :route ORDER BY version DESC LIMIT 1""",
)


def forge_promotion(database: Path, *, route: str, candidate: str, proposal: str) -> str | None:
    """Promote `candidate` (a target id) by rows that look honest, and commit them.

    proposal: whose verdict is forged. The database's refusal; None where it took them all.
    """
    connection = sqlite3.connect(database, timeout=30)
    values = {"route": route, "candidate": candidate, "proposal": proposal}
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        for statement in FORGERY:
            connection.execute(statement, values)
        connection.commit()
    except sqlite3.IntegrityError as refusal:
        connection.rollback()
        return str(refusal)
    finally:
        connection.close()
    return None
