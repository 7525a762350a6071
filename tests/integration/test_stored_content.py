import json
import secrets
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from harness.app.store.tables import metadata
from harness.frame.database import engine
from harness.frame.people.access import SYSTEM
from harness.operations.captures import delete_user
from harness.operations.control_jobs import blank_old_texts, purge_expired
from harness.operations.records import CAPTURED, Captures
from harness.proposals.recomputation import replay_verdict
from harness.routing.kept_responses import KeptPiece
from harness.routing.records.kept_pieces import KeptPieces
from harness.routing.records.runs import EvalRuns
from harness.routing.reliability.failover import hash_callers
from harness.routing.shadow_pair import CANDIDATE
from tests.contract.test_store_observations import ONE
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.known_secrets import SECRET
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    ReceivedRequest,
    completion,
    streamed,
)
from tests.support.router.router_process import ROUTE, Routed, eventually
from tests.support.site.agents_site import AgentsSite, agents_site, good

pytestmark = [
    pytest.mark.req("G4"),
    pytest.mark.slow,
    pytest.mark.timeout(600),
]

USER = "user-4711"


def stored_bytes(folder: Path, url: str) -> bytes:
    """Every byte of the installation's files, and of PostgreSQL every value of every row."""
    skipped = {"asked.jsonl"}  # the operator's own suite
    files = [f for f in folder.rglob("*") if f.is_file() and f.name not in skipped]
    found = [file.read_bytes() for file in files]
    if url.startswith("postgresql"):
        made = engine.make(engine.parse(url))
        with made.connect() as db:
            for table in metadata.tables:
                rows = db.execute(sa.text(f'SELECT t::text FROM "{table}" t')).scalars()  # noqa: S608 - our tables
                found += [row.encode() for row in rows]
        made.dispose()
    return b"\n".join(found)


def echo(request: ReceivedRequest) -> ScriptedTurn:
    words = f"You said {request.json['messages']}"
    return streamed(words) if request.json.get("stream") else completion(words)


def tell_everybody(
    site: AgentsSite,
    user: str,
    word: str,
) -> None:
    """The word goes through every path by which a user's words come in."""
    with site.world.client() as client:
        for stream in (False, True):
            raw: Any = client.chat.completions.with_raw_response.create(
                model=ROUTE,
                messages=[
                    {
                        "role": "user",
                        "content": f"{word}, streamed: {stream}",
                    }
                ],
                user=user,
                stream=stream,
                # The header decides the arm; whose request it is stands in the body.
                extra_headers={"x-swapproof-sticky": f"chat-{word}"} if stream else {},
            )
            made = raw.parse()
            assert not stream or list(made)
            opinion = {
                "request_id": raw.headers["x-swapproof-request-id"],
                "label": word,
            }
            told = client._client.post("/feedback", json=opinion, headers=client.auth_headers)
            assert told.status_code == 202
    agent = site.create(instructions="Help.", tools=["switch_model"])
    body = {"userId": user, "metadata": {"note": word}}
    session = good(site.client.post(f"{agent}/sessions", json=body))["id"]
    path = f"{agent}/sessions/{session}"
    good(site.send(path, word, headers={"idempotency-key": f"k-{user}"}))
    wanted = {
        "action": "switch",
        "model": "sim/sim-better",
        "reason": word,
    }
    assert site.client.post(f"{path}/switch_model", json=wanted).status_code == 202


def captured(world: Routed) -> int:
    """How many requests were captured, with those that were there already."""
    with world.installation.store.read() as tx:
        return sum(capture.seen for capture in Captures(tx).list())


def captures(world: Routed) -> list[str]:
    """The contents of the sampled requests, and of the shadow's pairs with both answers."""
    with world.installation.store.read() as tx:
        query = sa.select(CAPTURED.table).where(CAPTURED.table.c.shadow.is_not(None))
        pairs = [CAPTURED.read(row).content for row in tx.read(query)]
        sampled = [capture.content for capture in Captures(tx).list()]
    return [
        str(content) for content in (*sampled, *(pair for pair in pairs if CANDIDATE in pair))
    ]


@pytest.mark.verify
def test_seeded_words_are_gone_after_the_users_deletion(
    database_url: str, tmp_path: Path
) -> None:
    word, other, asked = (f"Xyzzy{name}{secrets.token_hex(8)}" for name in ("a", "b", "c"))
    suite = tmp_path / "asked.jsonl"
    suite.write_text(
        json.dumps(
            {
                "id": "one",
                "input": asked,
                "target": "x",
            }
        )
        + "\n"
    )
    sections = {
        "suites": {"asked": {"path": str(suite), "scorer": "exact"}},
        "routes": {
            ROUTE: {
                "incumbent": "sim/sim-base",
                "suites": ["asked"],
                "capture": "100%",
            }
        },
    }
    with agents_site(tmp_path, sections=sections, database_url=database_url) as site:
        world = site.world
        store = site.world.installation.store
        site.upstream.turns |= {"sim-base": echo, "sim-better": echo}
        run = world.place.run
        shadow = ("shadow", "start", ROUTE, "sim/sim-better")
        run(
            *shadow,
            "--share",
            "100",
            "--usd-per-day",
            "none",
            "--reason",
            "a look",
        )
        tell_everybody(site, USER, word)
        tell_everybody(site, "another", other)
        # Each user's first request is a pair of the shadow, too.
        eventually(lambda: captured(world) == 6 and len(captures(world)) == 8)
        world.place.start("control", "serve", "control", wait_for="/readyz")
        done = json.loads(
            run("eval", "run", "asked", "sim/sim-base", "--wait", "--json").stdout
        )
        with store.read() as tx:
            [sample] = EvalRuns(tx).samples(done["run"]["id"])
        assert asked in sample.prompt
        assert asked in sample.answer
        assert sum(word in capture for capture in captures(world)) == 4

        before = stored_bytes(tmp_path, database_url)
        assert all(seed.encode() in before for seed in (word, other, asked))
        assert store.signature_faults() == []

        for expected in (
            {"sessions": 1, "captures": 4},
            {"sessions": 0, "captures": 0},
        ):
            deleted = run("user", "delete", USER, "--reason", "ticket 12", "--json")
            counts = json.loads(deleted.stdout)
            assert {name: counts[name] for name in expected} == expected
        after = stored_bytes(tmp_path, database_url)
        assert word.encode() not in after
        assert all(seed.encode() in after for seed in (other, asked))
        assert USER.encode() not in after
        assert store.signature_faults() == []
        run("audit", "verify")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_has_expired_is_not_left_in_the_databases_log(
    world: SmallInstallation, database_url: str
) -> None:
    folder = Path(sa.make_url(database_url).database or "").parent
    word = f"Xyzzy{secrets.token_hex(8)}"
    content = {"messages": [{"role": "user", "content": word}]}
    now = world.clock.now()
    with world.store.write() as tx:
        new = replace(
            ONE,
            content=content,
            at=now,
            expires_at=now + timedelta(days=1),
        )
        Captures(tx).store(new, most_per_day=9)
        KeptPieces(tx).store([piece_of("user:ann", word, now)])
    assert stored_bytes(folder, database_url).count(word.encode()) > 1

    world.clock.jump(timedelta(days=2).total_seconds())
    purge_expired(
        world.context(),
        alerts_days=30,
        exposures_days=30,
        failovers_days=30,
        traffic_days=400,
    )

    assert word.encode() not in stored_bytes(folder, database_url)


def piece_of(user: str, word: str, at: datetime) -> KeptPiece:
    return KeptPiece(
        "caller",
        f"piece:{user}",
        at,
        at + timedelta(days=1),
        "chat",
        "",
        hash_callers((user, "header:x"), SECRET),
        len(word),
        {"item": {"role": "user", "content": word}},
    )


@pytest.mark.spine
@pytest.mark.both_databases
def test_a_users_kept_histories_are_deleted_with_the_user(
    world: SmallInstallation, tmp_path: Path, database_url: str
) -> None:
    word, other = (f"Xyzzy{secrets.token_hex(8)}" for _ in range(2))
    now = world.clock.now()
    with world.store.write() as tx:
        pieces = [
            piece_of(f"user:{USER}", word, now),
            piece_of(f"safety_identifier:{USER}", word, now),
            piece_of("user:another", other, now),
        ]
        KeptPieces(tx).store(pieces)

    done = delete_user(world.context(), SYSTEM, USER, "ticket 12", secret=SECRET)

    assert done.kept_pieces == 2
    after = stored_bytes(tmp_path, database_url)
    assert word.encode() not in after
    assert other.encode() in after


@pytest.mark.spine
@pytest.mark.both_databases
def test_texts_go_after_their_suites_time_and_the_verdict_on_them_still_holds(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    proposal = world.decided()
    assert proposal.verdict is not None
    before = replay_verdict(ctx, proposal.verdict)
    keep = {"colours": timedelta(days=30)}

    assert blank_old_texts(ctx, keep) == 0
    world.clock.jump(timedelta(days=31).total_seconds())
    assert blank_old_texts(ctx, {"another": timedelta(0)}) == 0
    assert blank_old_texts(ctx, keep) == 2
    assert blank_old_texts(ctx, keep) == 0

    with ctx.store.read() as tx:
        runs = EvalRuns(tx).list()
        samples = [sample for run in runs for sample in EvalRuns(tx).samples(run.id)]
    assert samples
    assert {(sample.answer, sample.prompt) for sample in samples} == {("", "")}
    assert replay_verdict(ctx, proposal.verdict) == before
    assert ctx.store.signature_faults() == []
