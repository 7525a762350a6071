"""Inserts rows in plain SQL, as a person with a shell would."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from harness.frame.database import engine

Row = dict[str, Any]
REFUSED = sa.exc.IntegrityError

AT = 1_790_000_000_000_000
EXPIRES = AT + 14 * 86_400_000_000
MIDDLE = {
    "suites": "[]",
    "inputs": "{}",
    "decided_at": AT,
    "expires_at": EXPIRES,
    "reason": "r",
}
STEPS = '{"steps":[{"weight_bps":100},{"weight_bps":500}]}'
POLICY = f'{{"canary":{STEPS},"promotion":"automatic"}}'
PROPOSAL = {
    "route": "a",
    "incumbent": "t_old",
    "candidate": "t_new",
    "claim": "superior",
    "reason": "",
    "proposer": "ada",
    "policy": POLICY,
    "self_approval": False,
    "plans": "[]",
    "phase": "evaluating",
    "created_at": AT,
    "updated_at": AT,
    "runs": "{}",
    "infra_errors": 0,
    "closed_because": "",
    "version": 1,
}
ROLLOUT = {
    "proposal": "p_1",
    "route": "a",
    "incumbent": "t_old",
    "candidate": "t_new",
    "verdict": "v_ok",
    "policy": STEPS,
    "salt": "s",
    "step": 0,
    "state": "waiting",
    "started_at": AT,
    "step_started_at": AT,
    "updated_at": AT,
    "ended_because": "",
    "version": 1,
}
VERSION = {
    "route": "a",
    "weight_bps": 0,
    "settings": "{}",
    "at": AT,
    "actor": "eve",
    "reason": "raw SQL",
}
FIRST = VERSION | {
    "version": 1,
    "revision": 1,
    "kind": "baseline",
    "incumbent": "t_old",
    "incumbent_evidence": "e_old",
}
NEXT = VERSION | {
    "version": 2,
    "revision": 3,
    "incumbent": "t_old",
    "incumbent_evidence": "e_old",
    "prev_version": 1,
    "prev_incumbent": "t_old",
}
ON = {
    "salt": "s",
    "rollout": "ro_1",
    "unit_rule": "{}",
    "weight_bps": 100,
}
PROOF = {
    "verdict_id": "v_ok",
    "verdict_candidate": "t_new",
    "verdict_outcome": "passed",
}
CANARY = (
    NEXT
    | ON
    | PROOF
    | {
        "kind": "canary",
        "canary": "t_new",
        "canary_evidence": "e_new",
    }
)
# After CANARY, by the person's word that `prepared` stores.
PROMOTION = (
    NEXT
    | PROOF
    | {
        "version": 3,
        "revision": 4,
        "prev_version": 2,
    }
    | {
        "kind": "promotion",
        "incumbent": "t_new",
        "incumbent_evidence": "e_new",
    }
)
SETTINGS = NEXT | {"kind": "settings"}
SAMPLE = {
    "run": "r_1",
    "item": "i1",
    "epoch": 0,
    "position": 0,
    "answer": "x",
    "strict": 0.5,
    "lenient": 0.5,
    "input_tokens": 1,
    "output_tokens": 1,
    "cost_usd": 0.1,
    "duration_s": 0.1,
    "error_text": "",
    "served_model": "",
    "served_build": "",
    "judge_model": "",
    "judge_build": "",
    "prompt": "",
    "rule": "",
    "finish": "",
}
APPROVAL = {
    "id": "a_1",
    "proposal": "p_1",
    "verdict": "v_ok",
    "kind": "canary",
    "principal": "ben",
    "name": "ben",
    "reason": "",
    "at": AT,
}
WAIVER = {
    "id": "w_1",
    "route": "a",
    "target": "t_third",
    "expires_at": AT,
}


EXPOSURE = {
    "rollout": "ro_1.first",
    "number": 1,
    "worker": "w",
    "ticket": 1,
    "period": 1,
    "caller": 7,
    "sample": 0,
    "canary": True,
    "weight_bps": 100,
    "admitted_at": AT,
    "traits": 0,
}
EXPOSURE_EVENT = {
    "rollout": "ro_1.first",
    "number": 2,
    "worker": "w",
    "ticket": 1,
    "kind": "ended",
    "at": AT,
    "began_at": AT,
    "outcome": "failed",
}
EXPOSURE_COUNT = {
    "rollout": "ro_1.first",
    "minute": AT,
    "worker": "w",
    "weight_bps": 100,
    "canary": True,
    "reason": "",
    "requests": 1,
}


class Database:
    def __init__(self, url: str) -> None:
        options, _ = engine.OPTIONS[engine.parse(url).get_backend_name()]
        self.engine = engine.make(engine.parse(url)).execution_options(**options)
        self.dialect = self.engine.dialect.name

    def run(self, statement: str, row: Row | None = None) -> None:
        with self.engine.begin() as db:
            db.execute(sa.text(statement), row or {})

    def insert(
        self,
        table: str,
        *rows: Row,
        verb: str = "INSERT",
    ) -> None:
        self.insert_all(*((table, row) for row in rows), verb=verb)

    def insert_all(self, *rows: tuple[str, Row], verb: str = "INSERT") -> None:
        with self.engine.begin() as db:
            for table, row in rows:
                columns = ", ".join(row)
                values = ", ".join(f":{column}" for column in row)
                statement = f"{verb} INTO {table} ({columns}) VALUES ({values})"
                db.execute(sa.text(statement), row)

    def takes(self, *rows: tuple[str, Row]) -> bool:
        """Whether the database takes the rows; else it keeps none of them."""
        try:
            self.insert_all(*rows)
        except REFUSED:
            return False
        return True

    def count(self, table: str) -> int:
        with self.engine.connect() as db:
            return int(db.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one())  # noqa: S608


@contextmanager
def prepared(url: str) -> Iterator[Database]:
    """Routes a and b with t_old as incumbent, verdicts for and against t_new.

    On a there is a rollout, and the word of somebody who lets it end before its last step.
    """
    db = Database(url)
    for target in ("t_old", "t_new", "t_third"):
        content = {
            "provider": "sim",
            "model": target,
            "parameters": "{}",
            "request_patch": "{}",
        }
        db.insert("target", {"id": target} | content)
    db.insert("proposal", PROPOSAL | {"id": "p_1"})
    for id_, route, incumbent, candidate, outcome in (
        ("v_ok", "a", "t_old", "t_new", "passed"),
        ("v_bad", "a", "t_old", "t_new", "failed"),
        ("v_other_route", "b", "t_old", "t_new", "passed"),
        ("v_other_incumbent", "a", "t_third", "t_new", "passed"),
        ("v_other_candidate", "a", "t_old", "t_third", "passed"),
    ):
        judged = {
            "route": route,
            "incumbent": incumbent,
            "candidate": candidate,
        }
        whose = {
            "id": id_,
            "proposal": "p_1",
            "outcome": outcome,
        }
        db.insert("verdict", MIDDLE | judged | whose)
    db.insert(
        "evidence",
        baseline("e_old", "a", "t_old"),
        baseline("e_b", "b", "t_old"),
    )
    db.insert("evidence", proven("e_new", "a", "t_new", "v_ok"))
    db.insert("route_version", FIRST)
    on_b = {
        "route": "b",
        "incumbent_evidence": "e_b",
        "revision": 2,
    }
    db.insert("route_version", FIRST | on_b)
    db.insert("rollout", ROLLOUT | {"id": "ro_1"})
    db.insert("approval", APPROVAL | {"kind": "promotion"})
    yield db
    db.engine.dispose()


def baseline(
    id_: str,
    route: str,
    target: str,
) -> Row:
    return {
        "id": id_,
        "route": route,
        "target": target,
        "kind": "baseline",
        "created_at": AT,
    }


def proven(
    id_: str,
    route: str,
    target: str,
    verdict: str,
    **changes: object,
) -> Row:
    proof = {
        "verdict_id": verdict,
        "verdict_incumbent": "t_old",
        "verdict_outcome": "passed",
    }
    return {
        **baseline(id_, route, target),
        "kind": "verdict",
        **proof,
        **changes,
    }


def fill(database: Database) -> None:
    """A row in each table that only grows."""
    run = {
        "id": "r_1",
        "suite": "s",
        "suite_digest": "d",
        "target": "t_old",
        "order_seed": "1",
        "epochs": 1,
        "wanted": 1,
        "state": "queued",
        "created_at": AT,
        "failures": 0,
        "message": "",
        "fingerprint": "f",
    }
    event = {
        "number": 1,
        "at": AT,
        "actor": "ada",
        "action": "x",
        "subject": "y",
    }
    chain = {
        "details": "{}",
        "previous": "0" * 64,
        "mac": "1" * 64,
    }
    pin = {
        "digest": "d",
        "name": "s",
        "version": "1",
        "data_sha256": "0",
        "scorer": "x",
    }
    counts = dict.fromkeys(("units", "canary_units", "failures", "canary_failures"), 5)
    block = {
        "rollout": "ro_1",
        "number": 1,
        "worker": "w",
        "sequence": 1,
        "weight_bps": 1,
    }
    database.insert("eval_run", run)
    database.insert("sample", SAMPLE)
    database.insert("audit_event", event | chain)
    database.insert("waiver", WAIVER | {"reason": "r", "author": "ada"})
    database.insert(
        "suite",
        pin
        | {
            "template": "",
            "items": 9,
            "created_at": AT,
        },
    )
    times = {
        "missing": 0,
        "opened_at": AT,
        "closed_at": AT,
    }
    database.insert("block", block | counts | times)
    database.insert("exposure", EXPOSURE)
    database.insert("exposure_event", EXPOSURE_EVENT)
    database.insert("exposure_count", EXPOSURE_COUNT)
    database.insert("exposure_arrival", {"rollout": "ro_1.first", "number": 2})
    with database.engine.begin() as db:
        for statement in (
            (
                "INSERT INTO evidence (id, route, target, kind, created_at)"
                " VALUES ('e_c', 'c', 't_old', 'baseline', 1),"
                " ('e_c2', 'c', 't_third', 'baseline', 1)"
            ),
            (
                "INSERT INTO route_fallback (route, version, position, target, evidence)"
                " VALUES ('c', 1, 0, 't_third', 'e_c2')"
            ),
            (
                "INSERT INTO route_version (route, version, revision, kind, incumbent,"
                " incumbent_evidence, weight_bps, settings, at, actor, reason)"
                " VALUES ('c', 1, 3, 'baseline', 't_old', 'e_c', 0, '{}', 1, 'a', 'r')"
            ),
        ):
            db.execute(sa.text(statement))
