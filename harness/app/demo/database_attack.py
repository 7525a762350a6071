"""Tries to promote the demo's worse model by raw SQL; the database refuses each statement."""

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
