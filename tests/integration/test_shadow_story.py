"""A shadow's judge decides over real HTTP, and its printed commands lead to people's verdict.

Router, models and judge are real servers. Only the clock of the control plane is the test's,
and the answers to the drawn suite are scripted.
"""

import re
import shlex
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import openai
import pytest
import sqlalchemy as sa

from evals.runner.rate_gate import RateGates
from evals.sim import server
from harness.app.installation import load_settings
from harness.app.shadow_judge import ProviderPairJudge
from harness.app.store.router_store import RouterStore
from harness.app.store.store import Store
from harness.canary import shadows
from harness.frame.people.access import OPERATOR, ApiKey, key_hash
from harness.frame.people.records import ApiKeys
from harness.frame.runtime.clock import SystemClock
from harness.gate.verdict import Passed
from harness.operations.records import captured
from harness.operations.shadow_judging import ShadowJudging
from harness.proposals.labels import label_pairs
from harness.routing.records.proposals import Proposals
from harness.routing.records.verdicts import Verdicts
from router.access.rate_limits import SharedRates
from router.recording.recorder import Recorder
from router.snapshot.holder import SnapshotHolder
from tests.integration.test_labelling import label_all
from tests.integration.test_runbook import catch_up
from tests.support.control.known_secrets import SECRET
from tests.support.providers import simulator_thread
from tests.support.router import live_router
from tests.support.router.live_router import KEY, running_router_on, wait_until
from tests.support.site.command_line import CommandLine, installed
from tests.support.site.signing_keys import CONTROL

pytestmark = pytest.mark.req("F8", "F9", "F13")

CALLERS = 80
PORTION = 20  # the router drops captures while a hundred wait
# Counters of requests that are not copied, and of captures that are not stored.
LOSING = ("shadow_", "captures_dropped", "captures_unreadable")
COMMAND = re.compile(r"`(swapproof [^`]+)`")
PROFILES = """\
base:
  script: [{newest: 'parcel (?P<n>\\d+)', text: 'Parcel $n is on its way.'}]
better:
  script: [{newest: 'parcel (?P<n>\\d+)', text: 'Parcel $n left the depot in Leeds today.'}]
# It prefers the answer with more words.
judge:
  skill: {judge: 1.0}
"""


@pytest.fixture
def sim_url(tmp_path: Path) -> Iterator[str]:
    profiles = tmp_path / "profiles.yaml"
    profiles.write_text(PROFILES, encoding="utf-8")
    models = server.simulator(profiles=profiles, time_scale=0.0)
    with simulator_thread.serve_in_thread(models) as url:
        yield url


@pytest.fixture
def cli(
    tmp_path: Path, database_url: str, sim_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CommandLine]:
    with installed(tmp_path, database_url, monkeypatch) as made:
        config = tmp_path / "swapproof.yaml"
        price = "{input_usd_per_mtok: 1, output_usd_per_mtok: 2}"
        text = config.read_text("utf-8").replace("http://127.0.0.1:9/v1", f"{sim_url}/v1")
        prices = "".join(f"      {model}: {price}\n" for model in ("better", "judge"))
        text = text.replace("      base:", f"{prices}      base:")
        text = text.replace("data_classes:\n  personal: [sim]\n", "")
        config.write_text(text, "utf-8")
        made.run("config", "apply", "--reason", "the models of this test")
        made.run("route", "settings", "chat", "--capture", "100%", "--reason", "our traffic")
        yield made


def database_of(cli: CommandLine) -> str:
    return str(load_settings(cli.folder / "swapproof.yaml").database_url)


@contextmanager
def routing(cli: CommandLine) -> Iterator[tuple[str, SnapshotHolder, Recorder]]:
    """A router on the installation's database."""
    with closing(
        Store(database_of(cli), secret=SECRET, clock=SystemClock(), signatures=CONTROL)
    ) as store:
        hashed = key_hash(KEY, live_router.SECRET)
        with store.write() as tx:
            ApiKeys(tx).add(
                ApiKey("k", "test", hashed, "good", None, frozenset(), SystemClock().now())
            )
        with running_router_on(RouterStore(store), cli.folder) as router:
            yield router


def ask_as_callers(cli: CommandLine, shadow: str) -> None:
    """Lets each caller ask once, and waits until all requests and pairs are stored."""
    with routing(cli) as (url, holder, recorder):
        etag = cli.world.store.snapshot().etag
        wait_until(lambda: holder.current and holder.current.etag == etag)
        wait_until(lambda: recorder.shadows.knows(shadow))
        with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
            for number in range(CALLERS):
                client.chat.completions.create(
                    model="chat",
                    messages=[{"role": "user", "content": f"Where is parcel {number * 37}?"}],
                    user=f"caller-{number}",
                )
                if number % PORTION == PORTION - 1:
                    wait_until(partial(has_stored, cli, recorder, number + 1))


def has_stored(cli: CommandLine, recorder: Recorder, callers: int) -> bool:
    """Tells whether each caller's request and pair are stored, the pair with an answer. Names
    the reason at once if the router copied or stored one request less.
    """
    lost = {name: n for name, n in recorder.counters.items() if name.startswith(LOSING)}
    lost.pop("shadow_mirrored", None)
    assert not lost, f"the router left out requests: {lost}"
    with cli.world.store.read() as tx:
        rows = tx.read(sa.select(captured)).all()
    pairs = [row for row in rows if row.shadow]
    answered = [row for row in pairs if row.candidate["outcome"] == "answered"]
    return len(rows) - len(pairs) == len(answered) == callers


def let_a_day_pass(cli: CommandLine) -> None:
    """Makes the stored requests those of yesterday."""
    with cli.world.store.write() as tx:
        at = captured.c.at
        earlier = {row.id: row.at - timedelta(days=1) for row in tx.read(sa.select(captured))}
        for id_, then in earlier.items():
            tx.write(sa.update(captured).where(captured.c.id == id_).values({at: then}))
    catch_up(cli)


def judge_pairs(cli: CommandLine) -> None:
    """Runs turns of the control plane's judge until the shadow has ended."""
    ctx = cli.world.context()
    gates = RateGates({}, SharedRates(cli.folder / "rates"), cli.folder)
    job = ShadowJudging(ProviderPairJudge(ctx, lambda: gates))
    for _ in range(CALLERS):
        job(ctx)
        if shadows.load_status(ctx, "chat").shadow.ended_at:
            return
    raise AssertionError("the shadow has no verdict")


@pytest.mark.both_databases
@pytest.mark.timeout(600)
def test_a_shadows_verdict_prints_commands_that_lead_to_peoples_verdict(
    cli: CommandLine,
) -> None:
    started = cli.json(
        *("shadow", "start", "chat", "sim/better", "--share", "100", "--usd-per-day", "5"),
        # More than a portion. A copy takes part until a thread has compared its answers, and
        # with 4 at once a busy machine drops copies.
        *("--at-once", "64"),
        *("--judge", "sim/judge", "--judge-anyway", "it's a simulation", "--reason", "a look"),
    )
    ask_as_callers(cli, started["id"])
    let_a_day_pass(cli)
    judge_pairs(cli)

    said = " ".join(cli.text("shadow", "status", "chat").split())
    assert "PASSED: by sim/judge" in said
    commands = COMMAND.findall(said[said.index(" next ") :])
    assert [shlex.split(command)[1] for command in commands] == ["suite", "route", "proposal"]
    # An earlier draw of the route is not in the way.
    cli.run(*shlex.split(commands[0].replace(commands[0].split()[3], "chat-traffic"))[1:])
    for command in commands:
        cli.run(*shlex.split(command)[1:])

    world = cli.world
    suite = shlex.split(commands[0])[3]
    world.suites[suite] = load_settings(cli.folder / "swapproof.yaml").suites[suite]
    # The judge prefers the candidate's answer to each request.
    world.script = lambda _target, _item, _epoch: "1.0"
    with world.store.read() as tx:
        [proposal] = Proposals(tx).open()
    waiting = world.until_decided(proposal.id)
    assert waiting.verdict is None
    assert "hidden until people have labelled" in cli.text("shadow", "status", "chat")

    labelling = label_pairs.start_labelling(world.context(), OPERATOR, proposal.id)
    assert label_all(world, OPERATOR, labelling.id, "candidate").ended
    decided = world.until_decided(proposal.id)
    with world.store.read() as tx:
        assert decided.verdict
        assert isinstance(Verdicts(tx).get(decided.verdict), Passed)
    assert "PASSED: by sim/judge" in " ".join(cli.text("shadow", "status", "chat").split())
