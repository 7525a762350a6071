"""kill -9 of the control process and of eval workers, at random points of a proposal.

Real processes, real signals, a real database and the simulator over real HTTP. Traffic is
written as a router would record it.
"""

import random
import time
from pathlib import Path

import psutil
import pytest

from evals.sim import server as sim
from harness.app.database import upgrade_database
from harness.app.installation import Installation, open_installation
from harness.control.proposals import submission
from harness.control.proposals.submission import ProposalRequest
from harness.control.routing import routes
from harness.domain.operations.access import SYSTEM
from harness.domain.proposals.proposal import Proposal, ProposalPhase
from harness.gate.offline.verdicts import replay_verdict
from tests.support.control.control_plane import block_of
from tests.support.providers import simulator_thread
from tests.support.site.processes import Site, kill_nine, site

END_S = 240.0


def settings(provider: str) -> dict[str, object]:
    return {
        "control": {"reconcile_interval_s": 0.3, "eval_connections": 2},
        "providers": {"sim": {"kind": "sim", "api_base": f"{provider}/v1"}},
        "routes": {
            "support": {"incumbent": "sim/sim-base", "policy": "demo", "suites": ["tickets"]}
        },
    }


def feed(installation: Installation, sequence: int) -> None:
    """A block for the live rollout, as a router would record it."""
    with installation.store.write() as tx:
        for rollout in tx.rollouts.live():
            block = block_of(rollout, sequence, installation.clock, failing=False)
            tx.observations.append([block], [])


def control(place: Site) -> None:
    place.start("control", "serve", "control", wait_for="/healthz")


def until_ended(installation: Installation, proposal: str, sequence: int) -> Proposal:
    deadline = time.monotonic() + END_S
    while time.monotonic() < deadline:
        found = submission.get_proposal(installation.context, proposal)
        if not found.open:
            return found
        sequence += 1
        feed(installation, sequence)
        time.sleep(0.2)
    raise AssertionError(f"{proposal} is still {found.phase}")


def disturb(place: Site, installation: Installation, rng: random.Random, kills: int) -> int:
    """Kill at random moments; a control process that is gone is started again at once."""
    sequence = 0
    for _ in range(kills):
        pause = time.monotonic() + rng.uniform(0.3, 4.0)
        while time.monotonic() < pause:
            sequence += 1
            feed(installation, sequence)
            time.sleep(0.3)
        workers = place.workers()
        if workers and rng.random() < 0.5:
            kill_nine(rng.choice(workers))
        else:
            place.kill("control")
            control(place)
    return sequence


def assert_whole(installation: Installation, ended: Proposal) -> None:
    assert ended.phase is ProposalPhase.PROMOTED, ended.closed_because
    table = routes.load_table(installation.context)
    assert table.routes["support"].incumbent == ended.candidate
    assert table.routes["support"].canary is None
    with installation.store.read() as tx:
        verdicts = tx.verdicts.for_proposal(ended.id)
        assert len(verdicts) == 1
        assert replay_verdict(verdicts[0]) == verdicts[0]
        assert tx.audit.first_break() is None
        for run in tx.runs.list():
            asked = [(s.item, s.epoch) for s in tx.runs.samples(run.id)]
            assert len(asked) == len(set(asked)) <= run.wanted
    kinds = [record.kind for record in routes.load_history(installation.context, "support")]
    assert kinds == ["promotion", "weight", "weight", "canary", "baseline"]


def job_under_kills(folder: Path, seed: int, kills: int) -> None:
    # Answers take their real time, so that there is something to be killed in.
    with (
        simulator_thread.serve_in_thread(sim.simulator(time_scale=1.0)) as provider,
        site(folder, settings(provider)) as place,
    ):
        installation = open_installation(place.config, create_secret=True)
        upgrade_database(installation.settings)
        control(place)
        request = ProposalRequest("support", "sim/sim-better", "kill -9")
        proposal = submission.create_proposal(installation.context, SYSTEM, request)
        sequence = disturb(place, installation, random.Random(seed), kills)
        ended = until_ended(installation, proposal.id, sequence)
        assert_whole(installation, ended)
        left = place.workers()
        assert place.terminate("control") == 0
        assert not any(psutil.pid_exists(pid) for pid in left)
        installation.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.req("F1", "F5")
@pytest.mark.verify
@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_is_killed_the_proposal_ends_right_with_one_verdict(
    tmp_path: Path, seed: int
) -> None:
    job_under_kills(tmp_path, seed, kills=3)
