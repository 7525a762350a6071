"""The version before this one, in processes of its own code, beside this one's: users, a swap,
its evals, a freeze and a break-glass go on over `db upgrade`, whoever leads.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from evals.sim import server as sim
from harness.app.installation import Installation, open_installation
from harness.control.proposals import submission
from harness.domain.proposals.proposal import Proposal, ProposalPhase
from harness.store import migrate, schema_revisions
from tests.integration.test_earlier_commits import CHECKOUT, code_of
from tests.support.providers import simulator_thread
from tests.support.router.router_fleet import RoundRobin
from tests.support.router.router_process import Routed, eventually
from tests.support.site.processes import Site, free_port, site
from tests.support.store.raw_rows import Database

pytestmark = [
    pytest.mark.verify,
    pytest.mark.both_databases,
    pytest.mark.timeout(1800),
    pytest.mark.req("G6"),
]
POLICY = {
    "promotion": "automatic",
    "gate": {"claim": "superior", "alpha": 0.05, "n_max": 200, "infra_pause_s": 2},
    "canary": {
        "unit": "request",
        "block_size": 20,
        "p0": 0.2,
        "bake_s": 0,
        "steps": [
            {"weight_bps": 1000, "min_exposures": 5},
            {"weight_bps": 5000, "min_exposures": 40, "certify": True},
        ],
    },
}
ROUTE = {"incumbent": "sim/sim-base", "suites": ["tickets"], "policy": "quick"}
ROUTES = ("chat", "frozen", "urgent")


def commit_before_the_newest_schema() -> str:
    newest = max((CHECKOUT / "migrations" / "versions").glob("[0-9]*.py"))
    command = ["git", "log", "--format=%h", "--diff-filter=A", "-1", "--", str(newest)]
    done = subprocess.run(  # noqa: S603 - our own file
        command, cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    if not done.stdout.strip():
        pytest.skip(f"the commit of {newest.name} is not in this checkout")
    return f"{done.stdout.strip()}^"


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with simulator_thread.serve_in_thread(sim.simulator(time_scale=0.2)) as url:
        yield url


class SideBySide:
    """Two routers and two control planes of one installation: `router` and `control` run the
    earlier code, `router-2` and `control-2` this one's.
    """

    def __init__(self, place: Site, earlier: Path) -> None:
        self.place, self.earlier = place, earlier
        for name, kind in {"router-2": "ROUTER", "control-2": "CONTROL"}.items():
            place.ports[name] = free_port()
            place.environment[name] = {f"SWAPGATE__{kind}__PORT": str(place.ports[name])}
        place.code |= {"router": earlier, "control": earlier}

    def start(self, name: str) -> None:
        kind, _, _ = name.partition("-")
        wait_for = "/readyz" if kind == "router" else "/healthz"
        self.place.start(name, "serve", kind, wait_for=wait_for)

    def ask(self, *words: str, earlier: bool = False) -> str:
        return self.place.run(*words, code=self.earlier if earlier else None).stdout

    def asked_for(self, *words: str) -> dict[str, object]:
        """By the earlier version's command line."""
        document = json.loads(self.ask(*words, "--json", earlier=True))
        assert isinstance(document, dict)
        return document

    def key_file(self, name: str) -> str:
        """Of an admin."""
        file = self.place.folder / f"{name}.key"
        file.touch(mode=0o600)
        made = self.asked_for("key", "create", name, "--role", "admin")
        file.write_text(str(made["text"]), encoding="utf-8")
        return str(file)


def phase_of(installation: Installation, proposal: str) -> Proposal:
    return submission.get_proposal(installation.context, proposal)


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    database = Database(url).engine
    try:
        with database.connect() as db:
            return [tuple(row) for row in db.execute(sa.text(query))]
    finally:
        database.dispose()


def samples(installation: Installation) -> list[tuple[str, str, int]]:
    with installation.store.read() as tx:
        return [
            (run.id, sample.item, sample.epoch)
            for run in tx.runs.list()
            for sample in tx.runs.samples(run.id)
        ]


def served(installation: Installation) -> dict[str, str]:
    with installation.store.read() as tx:
        table, targets = tx.routing.table().routes, tx.routing.targets()
    return {name: targets[table[name].incumbent].name for name in ROUTES}


def test_a_swap_is_carried_through_while_half_of_the_processes_are_the_version_before(
    provider: str, empty_database_url: str, tmp_path: Path
) -> None:
    earlier = code_of(commit_before_the_newest_schema(), tmp_path)
    settings: dict[str, object] = {
        "database_url": empty_database_url,
        "router": {"flush_interval_s": 0.2},
        "control": {"reconcile_interval_s": 0.3, "eval_connections": 2},
        "providers": {"sim": {"kind": "sim", "api_base": f"{provider}/v1"}},
        "policies": {"quick": POLICY},
        "routes": dict.fromkeys(ROUTES, ROUTE),
    }
    with site(tmp_path, settings) as place:
        sides = SideBySide(place, earlier)
        sides.ask("init", earlier=True)
        assert migrate.current(empty_database_url) != schema_revisions.needed()
        key = str(sides.asked_for("key", "create", "shop")["text"])
        ann, bo = (sides.key_file(name) for name in ("ann", "bo"))
        sides.start("router")
        sides.start("control")
        sides.ask("route", "freeze", "frozen", "--for", "1h", "--reason", "x", earlier=True)
        glass = ("route", "break-glass")
        asked = ("propose", "urgent", "sim/sim-better", "--for", "90s", "--reason", "x")
        made = sides.asked_for("--key-file", ann, *glass, *asked)
        sides.ask("--key-file", bo, *glass, "confirm", str(made["id"]), earlier=True)

        with closing(open_installation(place.config)) as installation:
            world = Routed(place, installation, key)
            carry_through(sides, world, empty_database_url)


def carry_through(sides: SideBySide, world: Routed, url: str) -> None:
    place, installation = sides.place, world.installation
    urls = [place.url(name) for name in ("router", "router-2")]
    with world.load(
        3, url=urls[0], http=lambda: httpx.Client(transport=RoundRobin(urls), timeout=60)
    ) as load:
        load.more(20)
        sides.ask("proposal", "create", "chat", "sim/sim-better", earlier=True)
        proposal = str(rows(url, "SELECT id FROM proposal")[0][0])
        # This version's code reads nothing of the earlier schema.
        until(lambda: len(rows(url, "SELECT item FROM sample")) > 3, sides)
        rules = rows(url, "SELECT policy FROM proposal")
        sides.ask("db", "upgrade")
        assert migrate.current(url) == schema_revisions.needed()
        load.more(20)
        sides.start("router-2")
        if "postgresql" in url:
            sides.start("control-2")  # it follows
        until(lambda: phase_of(installation, proposal).phase is ProposalPhase.CANARY, sides)
        assert rows(url, "SELECT policy FROM proposal") == rules
        assert place.terminate("control") == 0
        if "postgresql" not in url:
            sides.start("control-2")
        load.more(50)
        assert place.terminate("router") == 0
        until(lambda: not phase_of(installation, proposal).open, sides)
        load.more(20)
        # What was asked for before holds, and ends as it was to.
        assert "frozen" in sides.ask("route", "freezes")
        until(lambda: served(installation)["urgent"] == "sim/sim-base", sides)
    assert load.errors == []
    assert phase_of(installation, proposal).phase is ProposalPhase.PROMOTED
    for name in ("router-2", "control-2"):
        assert place.terminate(name) == 0
    asked = samples(installation)
    assert len(asked) == len(set(asked))
    assert world.recorded() == load.answered
    with installation.store.read() as tx:
        assert tx.audit.first_break() is None
    assert served(installation) == dict.fromkeys(ROUTES, "sim/sim-base") | {
        "chat": "sim/sim-better"
    }
    assert installation.store.signature_faults() == []
    logs = "".join(place.log(name) for name in place.children)
    assert "job_failed" not in logs
    assert "Traceback" not in logs


def until(condition: Callable[[], bool], sides: SideBySide) -> None:
    """Shows the logs where it does not happen."""
    try:
        eventually(condition, timeout_s=600.0)
    except AssertionError:
        logs = [sides.place.log(name)[-3000:] for name in sides.place.children]
        raise AssertionError("it did not happen in time:\n" + "\n".join(logs)) from None
