"""Models that differ in habit, in substance, in both: only the first loses by form (A8)."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.sim.profiles import Habits, Profile
from harness.evals.settings import SuiteSettings
from harness.frame import package_data
from harness.frame.people.access import SYSTEM
from harness.gate.policy import GatePolicy, Policy
from harness.gate.suite_plan import Claim
from harness.interfaces.cli.proposals.submission import create_proposal
from harness.proposals.report import comparison
from harness.proposals.report.comparison import Comparison
from harness.proposals.report.findings import (
    FormatFailure,
    add_json_mode,
    find_format_failures,
    patch_candidate,
)
from harness.providers.credential import ProviderKey
from harness.providers.kinds import PROVIDER_KINDS
from harness.providers.models.capabilities import Endpoint
from harness.providers.registry import targets
from harness.providers.target import Provider, RequestPatch, Target
from harness.routing.control import routes
from harness.routing.route_settings import RouteSettings, RouteSuite
from harness.routing.settings import RouterSettings
from router.frame.body import read_request
from router.protocols.endpoints import DIALECTS
from router.upstream.transport import UpstreamRequest
from router.upstream.transports import Transports
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import ANN
from tests.support.evals.simulated_answers import simulated_answers
from tests.support.providers.scripted_chat import Response, serving

pytestmark = pytest.mark.req("A8")

FOLDER = package_data.path("datasets")
SUITES = {
    name: SuiteSettings(
        name,
        path=FOLDER / f"{name}.jsonl",
        scorer=scorer,
        scorer_options=options,
    )
    for name, scorer, options in (
        ("extraction", "json_fields", {}),
        ("tickets", "label", {}),
        ("arithmetic", "numeric", {"final_line": "ANSWER:"}),
        ("instructions", "instructions", {}),
    )
}
# Of one seed: right and wrong on the same items where the skill is the same.
BASE = Profile("base", default_skill=0.8, seed=3)
WEAK = 0.5
OFTEN = 0.6
HABITS = [
    ("extraction", Habits(json_fences=OFTEN), "code_fence"),
    ("extraction", Habits(trailing_prose=OFTEN), "trailing_prose"),
    ("tickets", Habits(verbose=OFTEN), "label_with_extra_text"),
    ("instructions", Habits(verbose=OFTEN), "leading_prose"),
]
# `make test-all` plays this habit, `make verify` the others as well.
SAMPLED = ("extraction", "code_fence")


def sitting(
    tmp_path: Path,
    suite: str,
    *candidates: Profile,
) -> SmallInstallation:
    models = {model.name: model for model in (BASE, *candidates)}
    world = SmallInstallation(
        tmp_path,
        policy=Policy("default", gate=GatePolicy(n_max=160)),
        script=simulated_answers([SUITES[suite]], models),
    )
    world.suites = {suite: SUITES[suite]}
    ctx = world.context()
    targets.put_provider(ctx, SYSTEM, Provider("sim", "sim", "http://127.0.0.1:9/v1"))
    settings = RouteSettings(suites=(RouteSuite(suite),))
    routes.create_route(ctx, SYSTEM, "route", "sim/base", settings=settings)
    return world


def compared_with(
    world: SmallInstallation,
    candidate: str,
    *,
    descends_from: str | None = None,
) -> Comparison:
    made = world.decided(candidate, route="route", descends_from=descends_from)
    return comparison.load_comparison(world.context(), made.id)


def outcome(compared: Comparison) -> str:
    assert compared.verdict is not None
    return compared.verdict.outcome


@pytest.mark.parametrize(
    ("suite", "habits", "rule"),
    [
        pytest.param(
            suite,
            habits,
            rule,
            marks=pytest.mark.spine if (suite, rule) == SAMPLED else pytest.mark.verify,
        )
        for suite, habits, rule in HABITS
    ],
)
def test_a_habit_alone_is_a_format_mismatch_and_with_less_skill_a_failure(
    suite: str,
    habits: Habits,
    rule: str,
    tmp_path: Path,
) -> None:
    in_habit = replace(BASE, name="in-habit", habits=habits)
    in_both = replace(in_habit, name="in-both", default_skill=WEAK)
    in_substance = replace(BASE, name="in-substance", default_skill=WEAK)

    world = sitting(tmp_path, suite, in_habit, in_both, in_substance)
    compared = compared_with(world, "sim/in-habit")
    less = [outcome(compared_with(world, f"sim/in-{n}")) for n in ("both", "substance")]

    (lost,) = find_format_failures(compared)
    assert outcome(compared) == "harness_mismatch"
    assert (
        lost.remedy.rule,
        max(lost.rules, key=lost.rules.__getitem__),
    ) == (
        rule,
        rule,
    )
    assert lost.strict_delta < -0.05 < lost.lenient_delta
    assert len(lost.examples) == 5
    for example in lost.examples:
        assert (
            example.rule,
            example.candidate_score,
            example.lenient_score,
        ) == (rule, 0, 1)
        assert example.incumbent != example.candidate
    assert less == ["failed", "failed"]


def the_loss(compared: Comparison) -> FormatFailure:
    (lost,) = find_format_failures(compared)
    return lost


def test_the_commands_of_a_remedy_ask_the_same_question_in_options_that_there_are(
    tmp_path: Path,
) -> None:
    model = replace(BASE, name="m", habits=Habits(json_fences=OFTEN))
    compared = compared_with(sitting(tmp_path, "extraction", model), "sim/m")
    asked = [replace(compared.proposal, claim=claim, reason="it's dear") for claim in Claim]
    lost = [(proposal, the_loss(replace(compared, proposal=proposal))) for proposal in asked]

    for proposal, mend in ((one, mend) for one, loss in lost for mend in loss.mends):
        words = shlex.split(mend.commands[1])
        given = create_proposal.make_context("create", words[3:]).params
        assert words[:3] == ["swapproof", "proposal", "create"]
        assert (given["route"], given["candidates"]) == (
            "route",
            (mend.target,),
        )
        assert (given["claim"], given["reason"]) == (
            proposal.claim.value,
            "it's dear",
        )
        assert given["descends_from"] == proposal.candidate
        assert (given["margin"] is None) == (proposal.claim is Claim.SUPERIOR)


@pytest.mark.parametrize(
    ("suite", "habits", "json_mode"),
    [
        ("extraction", Habits(json_fences=0.4, trailing_prose=0.4), False),
        ("extraction", Habits(json_fences=OFTEN), True),
        pytest.param("tickets", Habits(verbose=OFTEN), False, marks=pytest.mark.verify),
        ("instructions", Habits(verbose=OFTEN), False),
    ],
)
def test_a_remedy_as_a_request_patch_makes_another_target_that_passes(
    suite: str,
    habits: Habits,
    tmp_path: Path,
    *,
    json_mode: bool,
) -> None:
    """Better in substance, hidden by its habits; mended it shows."""
    better = replace(
        BASE,
        name="better",
        default_skill=0.97,
        habits=habits,
    )
    world = sitting(tmp_path, suite, better)
    compared = compared_with(world, "sim/better")
    lost = the_loss(compared)
    first = compared.candidate

    mended = add_json_mode(first) if json_mode else patch_candidate(first, lost.remedy)
    assert mended.id == lost.mends[json_mode].target
    seed = Target(
        mended.provider,
        mended.model,
        mended.parameters,
        mended.request_patch,
    )
    assert targets.add_target(world.context(), ANN, seed).id == mended.id
    again = compared_with(world, mended.id, descends_from=first.id)

    assert outcome(again) == "passed"
    assert {plan.look for plan in again.proposal.plans} == {2}


PATCH = RequestPatch({"temperature": 0.25, "max_tokens": 77}, "Answer in French.")
HI = [{"role": "user", "content": "hi"}]
ASKED: dict[Endpoint, dict[str, Any]] = {
    Endpoint.CHAT: {"messages": [{"role": "system", "content": "Be kind."}, *HI]},
    Endpoint.RESPONSES: {
        "instructions": "Be kind.",
        "input": "hi",
        "max_output_tokens": 5,
    },
    Endpoint.MESSAGES: {
        "system": "Be kind.",
        "messages": HI,
        "max_tokens": 5,
    },
}
CHATS_ALONE = ("deepseek", "groq")


async def sent(
    endpoint: Endpoint,
    kind: str,
    target: Target,
) -> dict[str, Any]:
    dialect = DIALECTS[endpoint]
    request = read_request(json.dumps({"model": "r", **ASKED[endpoint]}).encode(), endpoint)
    transports = Transports(RouterSettings())
    transports.prepare([kind])
    with serving(lambda _: Response("oui")) as served:
        provider = Provider("up", kind, served.url, "UP_KEY")
        reply = await transports(provider).send(
            UpstreamRequest(
                provider,
                dialect.patched(request, target),
                stream=False,
                path=dialect.path,
                key=ProviderKey("UP_KEY", "k"),
            )
        )
        await reply.body()
        await reply.aclose()
        await transports.aclose()
    [found] = served.requests
    assert found["path"].endswith("/chat/completions")
    return found


@pytest.mark.parametrize("kind", CHATS_ALONE)
def test_these_kinds_have_chats_alone(kind: str) -> None:
    assert {Endpoint.RESPONSES, Endpoint.MESSAGES} <= PROVIDER_KINDS[kind].adapted


@pytest.mark.parametrize("endpoint", sorted(ASKED))
@pytest.mark.parametrize("kind", CHATS_ALONE)
async def test_a_patch_reaches_the_chat_that_an_endpoint_becomes(
    endpoint: Endpoint, kind: str
) -> None:
    found = await sent(endpoint, kind, Target("up", "m", request_patch=PATCH))

    said = json.dumps(found["messages"][0])
    assert found["messages"][0]["role"] in ("system", "developer")
    assert "Be kind." in said
    assert "Answer in French." in said
    assert found["temperature"] == 0.25
    assert 77 in (
        found.get("max_tokens"),
        found.get("max_completion_tokens"),
    )


@pytest.mark.parametrize("endpoint", [Endpoint.CHAT, Endpoint.RESPONSES])
async def test_a_patchs_response_format_reaches_the_chat(endpoint: Endpoint) -> None:
    schema = {
        "name": "s",
        "schema": {
            "type": "object",
            "properties": {},
            "required": [],
            "additionalProperties": False,
        },
        "strict": True,
    }
    shape = {"type": "json_schema", "json_schema": schema}
    patch = RequestPatch(response_format=shape)

    found = await sent(endpoint, CHATS_ALONE[0], Target("up", "m", request_patch=patch))

    assert found["response_format"] == shape


patches = st.builds(
    RequestPatch,
    st.dictionaries(
        st.sampled_from(["temperature", "seed"]),
        st.integers(0, 3),
        max_size=2,
    ),
    st.sampled_from(["", "a", "b"]),
    st.none() | st.just({"type": "json_object"}),
)


@given(patches, patches)
def test_targets_are_the_same_only_with_the_same_patch(
    one: RequestPatch, other: RequestPatch
) -> None:
    first = Target("p", "m", request_patch=one)
    second = Target("p", "m", request_patch=other)

    assert (first.id == second.id) == (one == other)
    assert ("#" in first.name) == (not one.empty)
