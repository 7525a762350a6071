"""Directs the demo (`run_demo`): makes an installation in a temporary folder, starts simulated
providers, control, router and dashboard, plays the stories under traffic, kills a provider
meanwhile, attacks the database at the end, and reports whether every story ended as it should.
"""

import sqlite3
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from harness.app import processes
from harness.app.demo.actions import QUIET_RPS, DemoActions, DemoDisplay, DemoStep
from harness.app.demo.agent import DemoAgent
from harness.app.demo.environment import (
    INCUMBENT,
    OUTAGE_ROUTE,
    PORTS,
    WORSE,
    DemoEnvironment,
    build_scenarios,
    play_to_end,
)
from harness.app.demo.traffic import DemoTraffic
from harness.app.installation import open_installation
from harness.app.set_up import SetUpResult, set_up
from harness.control.routing import routes as routing
from harness.domain.errors import SwapgateError
from harness.domain.evals.verdict import Failed
from harness.domain.operations.principals import OPERATOR
from harness.domain.proposals.proposal import ProposalPhase
from harness.runtime.processes.interruption import wait_for_interrupt

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

# Title, statement, and the outcome that it claims; None for no verdict.
TRIES: Sequence[tuple[str, str, str | None]] = (
    ("promote it without a verdict", _PROMOTE, None),
    ("promote it with its failed verdict", _PROMOTE, "failed"),
    ("promote it and claim that the verdict passed", _PROMOTE, "passed"),
    ("declare it the route's baseline", _EVIDENCE, None),
    (
        "write 'passed' over its verdict",
        "UPDATE verdict SET outcome = 'passed' WHERE id = :verdict",
        "failed",
    ),
)


def _attack(database: Path, values: dict[str, str], claim: str | None, statement: str) -> str:
    """Tries the statement. Returns why the database refused it, empty where it took it. Nothing
    is kept, whatever the database says.
    """
    known: dict[str, str | None] = {**values, "outcome": claim}
    if claim is None:
        known["verdict"] = None
    connection = sqlite3.connect(database, timeout=30)
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        changed = connection.execute(statement, known).rowcount
    except sqlite3.IntegrityError as refusal:
        return str(refusal)
    else:
        return "" if changed else "no row was changed"
    finally:
        connection.rollback()
        connection.close()


SDK_RPS = 14.0
OUTAGE_AFTER_S = 20.0
OUTAGE_S = 20.0
SDK_REQUESTS = 500
AS_PLANNED = "all of it ended as it should"
NOT_AS_PLANNED = "something did not end as it should: it is marked with ✕ above"


def run_demo(*, once: bool, swap: bool) -> int:
    """Run the whole demo. Returns 0 only when all stories ended as they should."""
    stage = DemoEnvironment(swap=swap)
    return play_to_end(stage, lambda: _play(stage, once=once, swap=swap))


def _play(stage: DemoEnvironment, *, once: bool, swap: bool) -> bool:
    notes = stage.choose_ports(PORTS)
    stage.write_config()
    for provider in ("sim", "primary", "backup"):
        stage.start_provider(provider)
    made = set_up(stage.config)
    installation = open_installation(stage.config)
    routes = [OUTAGE_ROUTE, *(story.route for story in build_scenarios(swap=swap))]
    rates = dict.fromkeys(routes, QUIET_RPS)
    traffic = DemoTraffic(f"{stage.url('router')}/v1", made.data_key or "", rates)
    screen = DemoDisplay()
    for note in notes:
        screen.say(note)
    screen.say("Swapgate's processes start: half a minute or so")
    stage.start_swapgate()
    drive = DemoActions(installation, stage, traffic, screen)
    try:
        _open(drive, made)
        if swap:
            screen.say("SWAP=1: aurora-2 and aurora-lite have exchanged their skills")
        outcome = _report(drive, _stories(drive, swap=swap))
        screen.say(AS_PLANNED if outcome else NOT_AS_PLANNED)
        if not once:
            traffic.start()
            screen.say(f"{stage.url('ui')}: the dashboard; traffic goes on until Ctrl-C")
            wait_for_interrupt()
    finally:
        traffic.stop()
        installation.close()
    return outcome


def _open(drive: DemoActions, made: SetUpResult) -> None:
    """Shows the addresses, before anything happens."""
    drive.stage.await_answer("ui", processes.HEALTH["ui"])
    settings, screen = drive.installation.settings, drive.screen
    screen.lines(
        "Where to look",
        [
            *processes.address_lines(settings, ("ui", "router", "control")),
            f"agents     {drive.stage.url('router')}/agents, by `swapgate docs open agents`",
            f"sign in    {made.sign_in_link}",
            f"           works once; another browser takes the key {made.admin_key}",
            f"commands   swapgate --config {drive.stage.config} proposal list",
        ],
    )
    screen.say("policy `demo` asks for fewer items and users than `default`")
    screen.say("providers are simulated; router, control plane, evals and database are real")


def _stories(drive: DemoActions, *, swap: bool) -> list[tuple[bool, str]]:
    """The three proposals, and beside them an outage and an agent: how these two ended."""
    traffic, stories = drive.traffic, build_scenarios(swap=swap)
    swapped = next(story for story in stories if story.ends is ProposalPhase.PROMOTED)
    agent = DemoAgent(traffic.base_url, traffic.key, swapped.route, drive.screen.say)
    agent.take_turn(INCUMBENT)
    traffic.start(sdk_rate=SDK_RPS)
    drive.propose(stories)
    outage = threading.Thread(target=_outage, args=(drive,), daemon=True)
    outage.start()
    drive.watch()
    survived = _swap_back(drive, agent, swapped.candidate)
    outage.join()
    while traffic.tally.answered["openai"] < SDK_REQUESTS and not traffic.tally.failed:
        time.sleep(0.2)
    traffic.stop()
    lost = f"{OUTAGE_ROUTE}: provider lost under traffic, nobody noticed"
    loop = f"{agent.route}: an agent's tool loop survived its model's swap and its rollback"
    return [(_backup_served(drive), lost), (survived, loop)]


def _swap_back(drive: DemoActions, agent: DemoAgent, candidate: str) -> bool:
    """The agent's second turn is the new model's, its third the former one's again. Whether it
    came to its end.
    """
    try:
        agent.take_turn(candidate)
        why = "make demo: back in the middle of an agent's loop"
        routing.roll_back(drive.installation.context, OPERATOR, agent.route, reason=why)
        drive.screen.say(f"{agent.route}: rolled back to {INCUMBENT}")
        agent.take_turn(INCUMBENT)
    except SwapgateError as error:
        drive.screen.say(str(error))
    return agent.survived(INCUMBENT, candidate, INCUMBENT)


def _outage(drive: DemoActions) -> None:
    time.sleep(OUTAGE_AFTER_S)
    pid = drive.stage.kill("primary")
    drive.screen.say(
        f"{OUTAGE_ROUTE}: its provider (pid {pid}) was killed with SIGKILL under traffic"
    )
    time.sleep(OUTAGE_S)
    drive.stage.start_provider("primary")
    drive.screen.say(f"{OUTAGE_ROUTE}: the provider is back")


def _backup_served(drive: DemoActions) -> bool:
    """Whether requests of the route were answered by the other provider, and none failed."""
    time.sleep(2 * drive.installation.settings.router.flush_interval_s)
    ctx = drive.installation.context
    with ctx.store.read() as tx:
        route = tx.routing.table().routes[OUTAGE_ROUTE]
        # Traffic is kept by the minute: the first one began before the first proposal.
        began = drive.scenes[0].comparison.proposal.created_at - timedelta(minutes=1)
        minutes = tx.observations.traffic(since=began)
    ours = [minute for minute in minutes if minute.route == OUTAGE_ROUTE]
    backup = sum(m.requests for m in ours if m.target in route.fallbacks)
    failed = sum(m.failed for m in ours)
    drive.screen.say(
        f"{OUTAGE_ROUTE}: {backup} requests were answered by the backup, {failed} failed"
    )
    return backup > 0 and failed == 0


def _report(drive: DemoActions, beside: list[tuple[bool, str]]) -> bool:
    tally, screen = drive.traffic.tally, drive.screen
    stories = [*map(_ending, drive.scenes), *beside]
    screen.lines("The five stories", [f"{_mark(good=good)} {text}" for good, text in stories])
    sdk, generator = tally.answered["openai"], tally.answered["generator"]
    enough = _mark(good=sdk >= SDK_REQUESTS)
    screen.lines(
        f"{_mark(good=not tally.failed)} {tally.total:,} requests of users, "
        f"{tally.failed} failed",
        [
            f"{enough} {sdk:,} by the official openai client",
            f"{generator:,} by the load generator",
            *tally.failures[:5],
        ],
    )
    told = _promise(drive) and all(good for good, _ in stories)
    return told and not tally.failed and sdk >= SDK_REQUESTS


def _mark(*, good: bool) -> str:
    return "✓" if good else "✕"


def _ending(scene: DemoStep) -> tuple[bool, str]:
    verdict, proposal = scene.comparison.verdict, scene.comparison.proposal
    words = f"{verdict.words if verdict else 'no verdict'}, then {proposal.phase_text}"
    as_planned = scene.phase is scene.story.ends
    return as_planned, f"{scene.story.route}: {scene.story.candidate}: {words}"


def _promise(drive: DemoActions) -> bool:
    """Raw SQL against the promise, with the verdict of a candidate that failed."""
    lost = [s for s in drive.scenes if isinstance(s.comparison.verdict, Failed)]
    if not lost:
        drive.screen.lines("✕ No candidate failed its evals", [f"{WORSE} should have"])
        return False
    comparison = lost[0].comparison
    values = {
        "route": comparison.proposal.route,
        "candidate": comparison.proposal.candidate,
        "verdict": comparison.verdict.id if comparison.verdict else "",
    }
    database = drive.stage.folder / "swapgate.db"
    tried = {what: _attack(database, values, claim, by) for what, by, claim in TRIES}
    drive.screen.lines(
        f"Raw SQL tries to promote {comparison.candidate.name} all the same",
        [
            f"{_mark(good=bool(why))} {title}: " + (f"refused: {why}" if why else "TAKEN")
            for title, why in tried.items()
        ],
    )
    return all(tried.values())
