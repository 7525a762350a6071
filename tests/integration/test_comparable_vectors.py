"""A route for embeddings keeps one model, unless its owner declares the vectors comparable."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.app import installation, seed
from harness.frame.alerts.alert import AlertKind
from harness.frame.errors import NotAllowed
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.gate.online.observation import NEED, AskedName
from harness.gate.pins import ServedModel, Sighting
from harness.operations import queries
from harness.proposals import fallback_chain, route_rules, submission
from harness.proposals.fallback_chain import FallbackRequest, WaiverRequest
from harness.proposals.submission import ProposalRequest
from harness.providers.records import Providers, Sightings
from harness.providers.registry import targets
from harness.providers.target import Target
from harness.routing.control import routes, vector_checks
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Proposals
from harness.routing.route_settings import RequestKind, RouteSettings, RouteSuite
from tests.support.control.bare_installation import BareInstallation
from tests.support.control.people import ANN

pytestmark = pytest.mark.req("A7", "B3")
ADA = Actor("ada", Role.ADMIN, "pr_ada")
SMALL = "sim/text-embedding-3-small"
LARGE = "sim/text-embedding-3-large"
SUITES = RouteSettings(suites=(RouteSuite("colours"),))
WORLD: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "world" / "embeddings" / "mixed.yaml").read_text("utf-8")
)["pairs"]


@pytest.fixture
def world(world: BareInstallation) -> BareInstallation:
    """A second provider may serve the same models."""
    with world.store.read() as tx:
        sim = Providers(tx).all()["sim"]
    targets.put_provider(world.context(), SYSTEM, replace(sim, name="azure"))
    routes.create_route(world.context(), ADA, "search", SMALL, settings=SUITES)
    return world


def add(world: BareInstallation, route: str, target: str) -> None:
    waive = WaiverRequest("needed", timedelta(days=1))
    fallback_chain.add_fallback(
        world.context(), ADA, route, FallbackRequest(target, waive=waive), reason="a spare"
    )


def propose(world: BareInstallation, route: str, candidate: str) -> None:
    submission.create_proposal(
        world.context(), ANN, ProposalRequest(route, candidate, reason="newer")
    )


def test_a_route_for_embeddings_takes_no_other_model(world: BareInstallation) -> None:
    with pytest.raises(NotAllowed, match="second index"):
        propose(world, "search", LARGE)
    with pytest.raises(NotAllowed, match="do not mix in one index"):
        add(world, "search", LARGE)
    with pytest.raises(NotAllowed, match="comparable_vectors: true"):
        routes.create_route(
            world.context(), ADA, "find", SMALL, fallbacks=[LARGE], settings=SUITES
        )


def test_an_override_leads_embeddings_to_no_other_model(world: BareInstallation) -> None:
    ctx = world.context()
    for name, model in (("find", LARGE), ("spare", "azure/text-embedding-3-small")):
        routes.create_route(ctx, ADA, name, model, settings=SUITES)

    def lead(name: str, *, comparable: bool = False) -> None:
        given: dict[str, str] = {RequestKind.EMBEDDING: name}
        routes.change_settings(
            ctx,
            ADA,
            "chat",
            lambda old: replace(old, overrides=given, comparable_vectors=comparable),
        )

    lead("search")
    lead("spare")
    with pytest.raises(NotAllowed, match="second index"):
        lead("find")
    lead("find", comparable=True)


def test_a_deployment_of_the_same_model_may_answer(world: BareInstallation) -> None:
    add(world, "search", "azure/text-embedding-3-small")
    assert routes.load_table(world.context()).routes["search"].fallbacks


def test_a_deployment_with_a_name_of_its_own_is_the_model_that_its_answers_name(
    world: BareInstallation,
) -> None:
    with pytest.raises(NotAllowed):
        add(world, "search", "azure/embed-prod")
    deployment = Target("azure", "embed-prod")
    served = ServedModel("text-embedding-3-small")
    with world.store.write() as tx:
        targets.register_target(world.context(), tx, SYSTEM, deployment)
        Sightings(tx).note([Sighting(deployment.id, served, tx.now(), tx.now())])
    add(world, "search", "azure/embed-prod")


def test_the_owner_may_declare_the_vectors_comparable(world: BareInstallation) -> None:
    routes.change_settings(
        world.context(), ADA, "search", lambda old: replace(old, comparable_vectors=True)
    )
    add(world, "search", LARGE)
    propose(world, "search", "azure/text-embedding-3-large")


def test_a_route_whose_traffic_has_embeddings_counts_as_one_for_embeddings(
    world: BareInstallation,
) -> None:
    day = world.clock.now().date()
    with world.store.write() as tx:
        asked = [AskedName(f"{NEED}embeddings", day, "chat", 3)]
        Observations(tx).append([], [], asked_names=asked)
    with pytest.raises(NotAllowed, match="second index"):
        propose(world, "chat", "sim/better")


def test_a_stored_route_that_mixes_models_serves_on_with_a_critical_alert(
    world: BareInstallation,
) -> None:
    def declare(*, comparable: bool) -> None:
        routes.change_settings(
            world.context(),
            ADA,
            "search",
            lambda old: replace(old, comparable_vectors=comparable),
        )

    declare(comparable=True)
    add(world, "search", LARGE)
    declare(comparable=False)
    vector_checks.update_vector_alerts(world.context())

    (alert,) = [
        one
        for one in queries.list_alerts(world.context())
        if one.kind is AlertKind.MIXED_VECTORS
    ]
    assert "route search" in alert.title
    assert LARGE in str(alert)
    assert list(vector_checks.list_mixed_vectors(world.context())) == ["search"]
    declare(comparable=True)
    assert vector_checks.list_mixed_vectors(world.context()) == {}


@pytest.mark.parametrize("case", WORLD, ids=lambda case: case["name"])
def test_published_pairs_of_models_mix_or_not(
    world: BareInstallation, case: dict[str, Any]
) -> None:
    one, other = (Target("sim", name) for name in case["models"])
    with world.store.read() as tx:
        assert vector_checks.is_embedding_model(world.context(), tx, one)
        assert vector_checks.is_same_model(tx, one, other) is case["same"]


def test_the_file_creates_no_route_that_mixes_models(
    world: BareInstallation, tmp_path: Path
) -> None:
    file = tmp_path / "swapproof.yaml"
    file.write_text(
        "providers:\n  fast: {kind: sim, api_base: 'http://127.0.0.1:9/v1'}\n"
        "routes:\n  find:\n    incumbent: fast/text-embedding-3-small\n"
        "    fallbacks: [fast/text-embedding-3-large]\n",
        encoding="utf-8",
    )
    with pytest.raises(NotAllowed, match="second index"):
        seed.apply_seed(world.context(), installation.load_settings(file))

    declared = file.read_text("utf-8") + "    comparable_vectors: true\n"
    file.write_text(declared, encoding="utf-8")
    seed.apply_seed(world.context(), installation.load_settings(file))
    assert "find" in routes.load_table(world.context()).routes


def test_an_open_proposal_of_another_model_opens_no_canary(world: BareInstallation) -> None:
    ctx = world.context()

    def declare(*, comparable: bool) -> None:
        routes.change_settings(
            ctx, ADA, "search", lambda old: replace(old, comparable_vectors=comparable)
        )

    declare(comparable=True)
    propose(world, "search", LARGE)
    declare(comparable=False)
    with ctx.store.read() as tx:
        (proposal,) = Proposals(tx).open()
        found = route_rules.list_rule_differences(ctx, tx, proposal)
    assert any("do not mix in one index" in difference for difference in found)
