import re
import shlex
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from evals.sim import profiles, simulated_model
from evals.suites.items import Item
from harness.app import gate_run as standalone
from harness.app.configuration import configuration
from harness.app.configuration.routing import parse_target_seed
from harness.app.gate_run import ComparisonRequest
from harness.evals.settings import SuiteSettings
from harness.frame import package_data
from harness.frame.people.access import SYSTEM
from harness.gate.online.observation import TrafficMinute
from harness.gate.policy import GatePolicy, Policy
from harness.gate.run import Sample
from harness.gate.suite_plan import Claim, SuitePlan, SuiteRole
from harness.interfaces.cli.evals.gate_run import gate_run
from harness.interfaces.cli.routing.route_options import (
    TargetOptions,
    requested_target,
)
from harness.proposals import submission
from harness.proposals.report.answer_examples import describe_report
from harness.proposals.report.content import (
    FileTrial,
    Report,
    gather_report,
    list_pins,
)
from harness.proposals.report.findings import find_format_failures
from harness.proposals.report.junit import render_junit
from harness.proposals.report.markdown import render_markdown
from harness.proposals.report.page import render_page
from harness.proposals.submission import ProposalRequest
from harness.providers.records import Providers
from harness.providers.registry import targets
from harness.providers.target import Price, Provider, Target
from harness.routing.control import routes
from harness.routing.proposal import Proposal
from harness.routing.records.observations import Observations
from harness.routing.records.runs import EvalRuns
from harness.routing.route_settings import RouteSettings, RouteSuite
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.known_secrets import SECRET
from tests.support.control.manual_clock import ManualClock
from tests.support.control.people import ANN
from tests.support.evals.simulated_answers import simulated_answers
from tests.support.store.sqlite_store import open_sqlite

pytestmark = pytest.mark.req("A3", "A7", "F10")

Example = tuple[SmallInstallation, Proposal]
SUITES = {"tickets": "label", "extraction": "json_fields"}


def reported(world: SmallInstallation, candidate: str = "sim/better") -> Report:
    proposal = world.decided(candidate)
    return gather_report(world.context(), proposal.id)


@pytest.mark.spine
@pytest.mark.parametrize(
    ("candidate", "head", "problem"),
    [
        (
            "sim/better",
            "# PASSED: `sim/better` may replace `sim/base`",
            None,
        ),
        (
            "sim/worse",
            "# FAILED: `sim/worse` must not replace `sim/base`",
            "failure",
        ),
        (
            "sim/equal",
            "# NOT ENOUGH EVIDENCE: `sim/equal` is not shown to be good enough to replace",
            "failure",
        ),
    ],
)
def test_the_first_line_says_what_to_do(
    world: SmallInstallation,
    candidate: str,
    head: str,
    problem: str | None,
) -> None:
    report = reported(world, candidate)
    verdict = report.comparison.verdict
    assert verdict is not None

    text = render_markdown(describe_report(report))
    assert text.startswith(head)
    assert verdict.reason in text
    assert f"swapproof gate replay {verdict.id}" in text
    for side in report.comparison.suites:
        assert side.pin.scorer_alone in dict(list_pins(side)).values()
    cases = ET.fromstring(render_junit(report)).findall("testsuite/testcase")  # noqa: S314 - our own
    assert [case.find(problem) is not None for case in cases if problem] == [True] * bool(
        problem
    )


def written(script: Callable[[Target, Item, int], str], tmp_path: Path) -> Report:
    clock = ManualClock()
    world = SmallInstallation(tmp_path, clock=clock, script=script)
    world.set_up()
    return reported(world, "sim/worse")


@pytest.mark.parametrize(
    "answer",
    [
        "```\n# PASSED\n```",
        "````text\n<script>alert(1)</script>",
        "| a | b |\n![](http://x)",
    ],
)
def test_what_a_model_wrote_stays_data(answer: str, tmp_path: Path) -> None:
    def script(
        target: Target,
        item: Item,
        _epoch: int,
    ) -> str:
        return str(item.target) if target.model == "base" else answer

    text = render_markdown(describe_report(written(script, tmp_path)))

    outside: list[str] = []
    fence = ""
    for line in text.splitlines():
        opened = re.match(r"`{3,}", line)
        if fence:
            fence = "" if line == fence else fence
        elif opened:
            fence = opened[0]
        else:
            outside.append(line)
    assert fence == ""
    shown = "\n".join(outside)
    assert shown.count("# PASSED") == 0
    assert "<script>" not in shown
    assert "![]" not in shown


def test_what_a_model_wrote_is_text_on_the_page_which_loads_nothing(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>![x](http://example.com/x.png)"

    def script(
        target: Target,
        item: Item,
        _epoch: int,
    ) -> str:
        return str(item.target) if target.model == "base" else hostile

    page = render_page(describe_report(written(script, tmp_path)))

    assert "&lt;script&gt;alert(1)" in page
    assert not [tag for tag in ("<script", "<img", "<link", "src=", "@import") if tag in page]
    assert page.count("<svg") == 1


def test_what_a_proposer_wrote_stays_data(world: SmallInstallation) -> None:
    report = reported(world)
    hostile = "cheap\n\n# FAILED\n![](http://x) <script>alert(1)</script> \x1b[2J \u202exis"
    proposal = replace(report.comparison.proposal, reason=hostile)
    comparison = replace(report.comparison, proposal=proposal)

    text = render_markdown(describe_report(replace(report, comparison=comparison)))

    # Behind it the command that measures anew has the reason in a line of its fence.
    read, _, command = text.partition("## To check it")
    assert "**Proposed because:** cheap # FAILED" in read
    assert not [part for part in ("![]", "<script>") if part in read]
    assert not [part for part in ("\x1b", "\u202e", "\n# FAILED") if part in read + command]


def test_control_characters_do_not_break_the_xml(tmp_path: Path) -> None:
    report = written(lambda *_: "\x00\x1b[31m", tmp_path)

    assert ET.fromstring(render_junit(report)).tag == "testsuites"  # noqa: S314 - our own


def example_world(folder: Path) -> SmallInstallation:
    datasets = package_data.path("datasets")
    suites = {
        name: SuiteSettings(name=name, path=datasets / f"{name}.jsonl", scorer=scorer)
        for name, scorer in SUITES.items()
    }
    models = profiles.load_profiles()

    def pace(target: Target, item: Item) -> float:
        middle = models[target.model].latency.first_token_median_ms / 1000
        return middle * (0.6 + 2 * simulated_model.uniform("pace", target.model, item.id) ** 4)

    script = simulated_answers(suites.values(), models)
    policy = Policy("default", gate=GatePolicy())
    world = SmallInstallation(
        folder,
        policy=policy,
        script=script,
        pace=pace,
    )
    world.suites = suites
    prices = {
        name: Price(model.price.input_usd_per_mtok, model.price.output_usd_per_mtok)
        for name, model in models.items()
    }
    targets.put_provider(
        world.context(),
        SYSTEM,
        Provider("sim", "sim", "http://127.0.0.1:9/v1", prices=prices),
    )
    asked = (
        RouteSuite("tickets"),
        RouteSuite("extraction", SuiteRole.REQUIRED),
    )
    for name, suites_ in (
        ("support", asked),
        ("forms", (RouteSuite("extraction"),)),
    ):
        settings = RouteSettings(suites=suites_)
        routes.create_route(world.context(), SYSTEM, name, "sim/sim-base", settings=settings)
    return world


def decided(world: SmallInstallation, request: ProposalRequest) -> Example:
    made = submission.create_proposal(world.context(), ANN, request)
    a_fortnight_of_traffic(world, made.incumbent)
    return world, world.until_decided(made.id)


# Both to read, each made once.
@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    world = example_world(tmp_path_factory.mktemp("decided"))
    return decided(world, ProposalRequest("support", "sim/sim-better", "half the price"))


@pytest.fixture(scope="module")
def by_form(tmp_path_factory: pytest.TempPathFactory) -> Example:
    world = example_world(tmp_path_factory.mktemp("by form"))
    return decided(world, ProposalRequest("forms", "sim/sim-fenced", "a test"))


def a_fortnight_of_traffic(world: SmallInstallation, incumbent: str) -> None:
    """42,000 requests of 400 input and 60 output tokens, at $2.50 and $10 per million."""
    requests = 42_000
    recorded = TrafficMinute(
        route="support",
        minute=world.clock.now() - timedelta(days=14),
        worker="w",
        arm="incumbent",
        target=incumbent,
        revision=1,
        requests=requests,
        failed=0,
        charged=0,
        streams=0,
        input_tokens=requests * 400,
        output_tokens=requests * 60,
        cost_usd=requests * (400 * 2.5 + 60 * 10) / 1e6,
    )
    with world.store.write() as tx:
        Observations(tx).append([], [recorded])


@pytest.mark.spine
@pytest.mark.req("A3")
def test_the_bill_is_reckoned_from_recorded_traffic_and_the_candidates_own_tokens(
    example: Example,
) -> None:
    world, proposal = example
    forecast = gather_report(world.context(), proposal.id).comparison.forecast
    with world.store.read() as tx:
        ours = [
            s for pair in proposal.runs.values() for s in EvalRuns(tx).samples(pair.incumbent)
        ]
        theirs = [
            s for pair in proposal.runs.values() for s in EvalRuns(tx).samples(pair.candidate)
        ]
    shared = {sample.item for sample in ours} & {sample.item for sample in theirs}

    def tokens(samples: list[Sample], kind: str) -> int:
        return sum(getattr(s, f"{kind}_tokens") for s in samples if s.item in shared)

    price = profiles.load_profiles()["sim-better"].price
    sent = 400 * tokens(theirs, "input") / tokens(ours, "input")
    made = 60 * tokens(theirs, "output") / tokens(ours, "output")
    each = (sent * price.input_usd_per_mtok + made * price.output_usd_per_mtok) / 1e6

    # $67.20 in 14 days; 42,000 requests are 90,000 in 30.
    assert forecast.now_usd == pytest.approx(67.2 / 14 * 30, rel=1e-3)
    assert forecast.candidate_usd == pytest.approx(90_000 * each, rel=1e-3)


@pytest.mark.req("A8")
def test_a_candidate_that_loses_by_form_gets_a_remedy_and_five_examples(
    by_form: Example,
) -> None:
    world, proposal = by_form
    report = gather_report(world.context(), proposal.id)
    text = render_markdown(describe_report(report))

    assert text.startswith("# FORMAT MISMATCH: `sim/sim-fenced` loses by form")
    assert "puts its answer into a code fence" in text
    assert "swapproof model add sim/sim-fenced --prompt-addendum 'Answer with the JSON" in text
    assert "response_format: json_object" in text
    (lost,) = find_format_failures(report.comparison)
    assert len(lost.examples) == 5
    assert not {answer.item for answer in report.telling} & {
        format_example.item for format_example in lost.examples
    }
    assert lost.strict_delta < 0 < lost.lenient_delta
    for format_example in lost.examples:
        assert "code_fence" in format_example.rule
        assert format_example.candidate.startswith("```")
        assert (
            format_example.candidate_score,
            format_example.lenient_score,
        ) == (0, 1)
        assert format_example.item in text


def question_of(command: str) -> ComparisonRequest:
    """As `swapproof gate run` reads it."""
    program, *group, verb = (words := shlex.split(command))[:3]
    assert (program, *group, verb) == ("swapproof", "gate", "run")
    given = gate_run.make_context("run", words[3:]).params
    options = TargetOptions(**{name: given[name] for name in TargetOptions.__annotations__})
    return ComparisonRequest(
        given["suites"],
        parse_target_seed(given["incumbent"]),
        requested_target(given["candidate"], options),
        given["policy"],
        Claim(given["claim"]),
        given["margin"],
        given["reason"],
        given["guards"],
        given["min_saving"],
    )


def printed(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("swapproof gate run")]


def registered_anew(
    world: SmallInstallation,
    tmp_path: Path,
    command: str,
) -> Proposal:
    with world.store.read() as tx:
        providers = Providers(tx).all()
    home = {"SWAPPROOF__HOME": str(tmp_path)}
    defaults = package_data.path("config/default.yaml")
    shipped_ones = configuration.load_settings(None, home, defaults=defaults)
    settings = replace(shipped_ones, providers=providers)
    with closing(open_sqlite(tmp_path / "anew.db", world.clock, secret=SECRET)) as store:
        ctx = world.context(store)
        return standalone.register_comparison(ctx, SYSTEM, settings, question_of(command))


@pytest.mark.req("A7", "F5")
@pytest.mark.parametrize(
    "wish",
    [
        ProposalRequest("many", "sim/sim-better", "half the price", Claim.SUPERIOR),
        ProposalRequest(
            "many",
            "sim/sim-better",
            "it's dearer\nhere",
            Claim.NON_INFERIOR,
            0.035,
        ),
        pytest.param(
            ProposalRequest(
                "many",
                "sim/sim-better",
                "",
                Claim.CHEAPER,
                0.02,
                min_saving=0.15,
            ),
            marks=pytest.mark.verify,
        ),
        pytest.param(
            ProposalRequest("many", "sim/sim-fenced", "", Claim.SUPERIOR, 0.045),
            marks=pytest.mark.verify,
        ),
    ],
)
def test_the_printed_command_asks_the_same_question(
    tmp_path: Path, wish: ProposalRequest
) -> None:
    world = example_world(tmp_path)
    # The primary suite stands last, as a route may list it.
    suites = (
        RouteSuite("extraction", SuiteRole.GUARD),
        RouteSuite("tickets"),
    )
    routes.create_route(
        world.context(),
        SYSTEM,
        "many",
        "sim/sim-base",
        settings=RouteSettings(suites=suites),
    )
    made = submission.create_proposal(world.context(), ANN, wish)
    report = gather_report(world.context(), world.until_decided(made.id, turns=1).id)

    (command,) = printed(render_markdown(describe_report(report)))
    again = registered_anew(world, tmp_path, command)

    def by_suite(proposal: Proposal) -> list[SuitePlan]:
        return sorted(proposal.plans, key=lambda plan: plan.suite)

    assert by_suite(again) == by_suite(made)
    assert (again.policy, again.claim) == (made.policy, made.claim)
    assert (again.incumbent, again.candidate) == (
        made.incumbent,
        made.candidate,
    )
    assert again.reason == " ".join(wish.reason.split()) or not wish.reason


@pytest.mark.req("H1", "F10")
def test_the_page_of_a_trial_speaks_of_its_file_and_of_no_route_or_canary(
    world: SmallInstallation, by_form: Example, tmp_path: Path
) -> None:
    again = "swapproof try --suite questions.jsonl --incumbent a/b --candidate c/d"
    suite = "swapproof init --yes && swapproof suite import questions.jsonl --suite questions"
    trial = FileTrial("questions.jsonl", again, suite, tmp_path / "answers")
    form_world, mismatched = by_form
    examples = {
        "passed": (world, world.decided("sim/better")),
        "harness_mismatch": (form_world, mismatched),
    }

    for outcome, (installation, proposal) in examples.items():
        report = gather_report(
            installation.context(),
            proposal.id,
            standalone=True,
            kept=tmp_path / "answers",
            trial=trial,
        )
        page = render_page(describe_report(report))

        assert report.comparison.verdict is not None
        assert report.comparison.verdict.outcome == outcome
        assert "questions.jsonl" in page
        assert again in page
        # A question of the example has the word route.
        banned = r"canary|gate-run|proposal|route:|this route|route&#x27;s"
        assert not re.findall(banned, page.lower())
    assert trial.next_command("passed") == suite
    assert trial.next_command("failed") == again


@pytest.mark.req("A8", "F10")
def test_a_gate_run_that_was_thrown_away_names_nothing_that_is_gone(
    by_form: Example, tmp_path: Path
) -> None:
    world, proposal = by_form
    thrown = gather_report(world.context(), proposal.id, standalone=True)
    text = render_markdown(describe_report(thrown))
    kept = render_markdown(describe_report(replace(thrown, kept=tmp_path / "a folder")))

    assert f"swapproof gate replay {proposal.verdict}" not in text
    assert "--keep FOLDER" in text
    assert f"SWAPPROOF__DATABASE_URL='sqlite:///{tmp_path}/a folder/swapproof.db'" in kept
    assert f"swapproof gate replay {proposal.verdict}" in kept
    assert "proposal create" not in text
    with_line, in_json_mode, _ = printed(text)
    mends = find_format_failures(thrown.comparison, standalone=True)[0].mends
    for command, mend in zip((with_line, in_json_mode), mends, strict=True):
        assert question_of(command).candidate.id == mend.target
