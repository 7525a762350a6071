"""Attacks the demo's database by raw SQL, as the last scene: somebody who holds the database
tries to promote the worse model.

First against the database's own rules, which refuse (`attack_all`). Then with rows that look
honest, which a database cannot tell from true ones (`forge_promotion`): those are not signed,
and the router refuses them.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# The current row of the route, with the candidate as its incumbent and some proof.
_PROMOTE = """
INSERT INTO route_version (route, version, revision, kind, incumbent, incumbent_evidence,
  weight_bps, settings, prev_version, prev_incumbent, verdict_id, verdict_candidate,
  verdict_outcome, at, actor, reason)
SELECT route, version + 1, (SELECT max(revision) + 1 FROM route_version), 'promotion',
  :candidate, incumbent_evidence, 0, settings, version, incumbent, :verdict, :candidate,
  :outcome, at, 'mallory', 'because I can'
FROM route_version WHERE route = :route ORDER BY version DESC LIMIT 1"""

_EVIDENCE = """
INSERT INTO evidence (id, route, target, kind, created_at)
SELECT 'e_forged', route, :candidate, 'baseline', at
FROM route_version WHERE route = :route ORDER BY version DESC LIMIT 1"""

TRIES: Sequence[tuple[str, str, str]] = (
    ("promote it without a verdict", _PROMOTE, "none"),
    ("promote it with its failed verdict", _PROMOTE, "failed"),
    ("promote it and claim that the verdict passed", _PROMOTE, "passed"),
    ("declare it the route's baseline", _EVIDENCE, "none"),
    (
        "write 'passed' over its verdict",
        "UPDATE verdict SET outcome = 'passed' WHERE id = :verdict",
        "failed",
    ),
)


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


@dataclass(frozen=True, slots=True)
class AttackResult:
    """One raw statement and the database's answer; refused is None if it was taken."""

    title: str
    refused: str | None


def attack_all(
    database: Path, *, route: str, candidate: str, verdict: str
) -> list[AttackResult]:
    """Try to put `candidate` (a target id) into the route by SQL alone.

    verdict: the candidate's own, failed one. Nothing is kept, whatever the database says.
    """
    done = []
    for title, statement, outcome in TRIES:
        values = {
            "route": route,
            "candidate": candidate,
            "verdict": None if outcome == "none" else verdict,
            "outcome": None if outcome == "none" else outcome,
        }
        done.append(AttackResult(title, _refusal(database, statement, values)))
    return done


def _refusal(database: Path, statement: str, values: dict[str, str | None]) -> str | None:
    connection = sqlite3.connect(database, timeout=30)
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        changed = connection.execute(statement, values).rowcount
    except sqlite3.IntegrityError as refusal:
        return str(refusal)
    else:
        return None if changed else "no row was changed"
    finally:
        connection.rollback()
        connection.close()
