"""Command line, report and dashboard say the same of what to do after a verdict."""

import pytest

from dashboard.data import queries
from dashboard.text.comparison_text import verdict_card
from evals.runner.provider_client import ProviderFailed
from evals.suites.items import Item
from harness.cli.proposals.comparison import print_comparison
from harness.control.proposals import decisions
from harness.control.proposals.comparison import load_comparison
from harness.domain.proposals.proposal import ProposalPhase
from harness.domain.routing.target import Target
from harness.report.content import gather_report
from harness.report.markdown import render_markdown
from tests.support.control.control_plane import BEN, SmallInstallation, answer, approved

pytestmark = pytest.mark.req("A7", "F10")


def next_step(
    world: SmallInstallation, proposal: str, capsys: pytest.CaptureFixture[str]
) -> str:
    """The one sentence, as each of the three shows it."""
    ctx = world.context()
    on_dashboard = verdict_card(queries.comparison(ctx, proposal)).next_step
    assert on_dashboard

    report = render_markdown(gather_report(ctx, proposal))
    assert f"**Next:** {on_dashboard}\n" in report

    capsys.readouterr()
    print_comparison(load_comparison(ctx, proposal), None)
    assert on_dashboard in " ".join(capsys.readouterr().out.split())
    return on_dashboard


@pytest.mark.parametrize(
    ("candidate", "outcome", "words"),
    [
        ("sim/better", "passed", "watch the canary; it is at"),
        ("sim/worse", "failed", "keep the incumbent"),
        ("sim/equal", "inconclusive", "items"),
    ],
)
def test_all_three_say_the_same_of_a_verdict(
    world: SmallInstallation,
    capsys: pytest.CaptureFixture[str],
    candidate: str,
    outcome: str,
    words: str,
) -> None:
    proposal = world.until_decided(world.propose(candidate).id)
    verdict = load_comparison(world.context(), proposal.id).verdict
    assert verdict is not None
    assert verdict.outcome == outcome

    assert words in next_step(world, proposal.id, capsys)


def test_all_three_follow_what_becomes_of_a_passed_proposal(
    world: SmallInstallation, capsys: pytest.CaptureFixture[str]
) -> None:
    world.policy = approved(world.policy)
    proposal = world.until_decided(world.propose("sim/better").id)
    assert proposal.phase is ProposalPhase.AWAITING_APPROVAL
    assert "approves or rejects the canary" in next_step(world, proposal.id, capsys)

    decisions.approve_proposal(world.context(), BEN, proposal.id)
    assert "opens within seconds" in next_step(world, proposal.id, capsys)

    world.run_once()
    assert "watch the canary; it is at" in next_step(world, proposal.id, capsys)


def test_what_is_measured_again_by_itself_asks_for_nothing(
    world: SmallInstallation, capsys: pytest.CaptureFixture[str]
) -> None:
    failed: set[str] = set()

    def down_once(target: Target, item: Item, epoch: int) -> str:
        if target.model == "better" and item.id[-1] in "13579" and item.id not in failed:
            failed.add(item.id)
            raise ProviderFailed("overloaded")
        return answer(target, item, epoch)

    world.script = down_once
    proposal, ctx = world.propose("sim/better"), world.context()
    for _ in range(4):
        world.run_once(ctx)
    assert world.get(proposal.id).retry_at is not None

    assert "it is measured again at" in next_step(world, proposal.id, capsys)
