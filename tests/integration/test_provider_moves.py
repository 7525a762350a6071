from collections.abc import Callable
from dataclasses import replace

import pytest

from evals.runner.provider_client import ProviderFailed
from evals.suites.items import Item
from harness.app import seed
from harness.app.configuration.model import ControlSettings, Settings
from harness.canary import decision, machine, operations
from harness.evals import proof_validity
from harness.frame.errors import InputError, ProofRefused
from harness.frame.failures import FIRST_PAUSE_S
from harness.frame.people.access import Actor, Role
from harness.frame.signing.audit_log import AuditLog
from harness.gate.online.rollout import RolloutSignal, RolloutState
from harness.proposals import decisions, review
from harness.providers.calls.guarded_http import check_headers
from harness.providers.records import Providers
from harness.providers.registry import credentials, named_models, registered_providers, targets
from harness.providers.registry.credentials import CredentialChange
from harness.providers.registry.targets import ProviderChange
from harness.providers.target import Provider, Target
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.routes import Routing
from harness.routing.records.verdicts import Verdicts
from harness.routing.settings import RouterSettings, UiSettings
from tests.support.control.colours_suite import answer
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import BEN
from tests.support.control.short_policies import approved
from tests.support.site.management_api import Door, error_of

pytestmark = pytest.mark.req("A7", "F6")

EVE = Actor("eve", Role.ADMIN, "pr_eve")
ELSEWHERE = "http://127.0.0.1:8/v1"
WHY = "a new gateway"


def provider(world: SmallInstallation, name: str = "sim") -> Provider:
    with world.store.read() as tx:
        return Providers(tx).all()[name]


def move(
    world: SmallInstallation,
    base: str = ELSEWHERE,
    reason: str = WHY,
) -> registered_providers.ProviderSummary:
    """A second before and after: runs begin before it or behind it."""
    world.clock.advance(1)
    change = ProviderChange(settings={"api_base": base}, reason=reason)
    done = registered_providers.change_provider(world.context(), EVE, "sim", change)
    world.clock.advance(1)
    return done


def in_canary(world: SmallInstallation) -> Proposal:
    made = world.decided()
    assert made.phase is ProposalPhase.CANARY
    return made


def test_a_canary_of_a_provider_that_moved_is_held_and_goes_no_further(
    world: SmallInstallation,
) -> None:
    made = in_canary(world)
    with world.store.read() as tx:
        before = Routing(tx).table().routes["chat"]
    done = move(world)
    assert made.rollout is not None
    assert done.answers_since is not None
    (line,) = done.outdated
    assert made.rollout in line
    assert "route chat" in line

    world.feed(blocks=3)
    world.run_once(turns=2)
    with world.store.read() as tx:
        rollout = machine.find_live(tx, "chat")
        assert rollout.state is RolloutState.PAUSED
        assert Routing(tx).table().routes["chat"] == before
        event = next(e for e in AuditLog(tx).tail() if e.action == "canary.pause")
    for reason in (
        event.details["reason"],
        decision.decide(world.context(), rollout).reason,
    ):
        assert "provider sim was moved by eve" in str(reason)
    for signal in (
        RolloutSignal.RESUME,
        RolloutSignal.ADVANCE,
        RolloutSignal.PROMOTE,
    ):
        with pytest.raises(ProofRefused, match="sim was moved by eve"):
            operations.operate(world.context(), BEN, "chat", signal, "go on")
    operations.operate(world.context(), BEN, "chat", RolloutSignal.ABORT, "measure it again")
    again = world.decided("sim/good")
    assert again.phase is ProposalPhase.CANARY


def test_what_was_measured_half_before_is_rejected_and_the_next_is_measured_anew(
    world: SmallInstallation,
) -> None:
    made = world.propose()
    world.run_once()
    assert world.get(made.id).runs
    move(world)
    decided = world.until_decided(made.id)
    world.run_once()
    assert world.get(made.id).phase is ProposalPhase.REJECTED
    assert "sim was moved" in world.get(made.id).closed_because

    world.clock.advance(1)
    again = world.decided()
    assert again.phase is ProposalPhase.CANARY
    assert again.runs["colours"].incumbent != decided.runs["colours"].incumbent


def test_one_that_is_moved_for_the_exam_and_put_back_proves_nothing(
    world: SmallInstallation,
) -> None:
    world.policy = approved()
    move(world)
    made = world.decided()
    move(world, "http://127.0.0.1:9/v1", "put back")
    with pytest.raises(ProofRefused, match="sim was moved by eve"):
        decisions.approve_proposal(world.context(), BEN, made.id)
    change = review.review_proposal(world.context(), made.id).changes[0]
    assert (change.what, change.by) == ("provider", "eve")
    assert "put back" in change.text


def by_credential(
    world: SmallInstallation,
    base: str,
    reason: str,
) -> object:
    change = credentials.CredentialChange(settings={"api_base": base}, reason=reason)
    return credentials.put_credential(world.context(), EVE, "sim", change)


def by_file(
    world: SmallInstallation,
    base: str,
    reason: str,
) -> object:
    parts = (
        RouterSettings(),
        ControlSettings(),
        UiSettings(),
    )
    known = {"sim": replace(provider(world), api_base=base, moved=None)}
    settings = Settings("", world.folder, None, *parts, known, {}, {}, {})
    return seed.apply_providers(world.context(), EVE, settings, reason)


def by_header(
    world: SmallInstallation,
    value: str,
    reason: str,
) -> object:
    headers = {"x-upstream": value.rpartition("/")[0]}
    check_headers(headers)
    change = ProviderChange(extra_headers=headers, reason=reason)
    return registered_providers.change_provider(world.context(), EVE, "sim", change)


def by_provider(
    world: SmallInstallation,
    base: str,
    reason: str,
) -> object:
    change = ProviderChange(settings={"api_base": base}, reason=reason)
    return registered_providers.change_provider(world.context(), EVE, "sim", change)


@pytest.mark.parametrize("way", [by_provider, by_credential, by_file, by_header])
def test_every_way_to_move_one_in_use_wants_a_reason_and_makes_verdicts_stale(
    world: SmallInstallation,
    way: Callable[[SmallInstallation, str, str], object],
) -> None:
    world.policy = approved()
    made = world.decided()
    world.clock.advance(1)
    with pytest.raises(InputError, match="route chat, needs a reason"):
        way(world, ELSEWHERE, " ")
    assert provider(world).moved is None

    way(world, ELSEWHERE, WHY)
    moved = provider(world).moved
    assert moved is not None
    assert (moved.by, moved.reason, moved.at) == (
        "eve",
        WHY,
        world.clock.now(),
    )
    with world.store.read() as tx:
        validity = proof_validity.assess_proof(
            world.context(), tx, Verdicts(tx).get(made.verdict or "")
        )
    assert "provider sim was moved by eve" in validity.text
    with world.store.read() as tx:
        event = next(e for e in AuditLog(tx).tail() if "moved_at" in e.details)
    assert event.details["reason"] == WHY


def test_another_kind_at_the_same_address_is_a_move(world: SmallInstallation) -> None:
    world.decided()
    world.clock.advance(1)
    custom = ProviderChange("custom")
    with pytest.raises(InputError, match="route chat, needs a reason"):
        registered_providers.change_provider(world.context(), EVE, "sim", custom)

    change = replace(custom, reason="its kind")
    done = registered_providers.change_provider(world.context(), EVE, "sim", change)

    assert (done.kind, done.answers_since) == ("custom", world.clock.now())
    with pytest.raises(InputError, match="`swapproof provider set sim --kind openai` changes"):
        credentials.put_credential(world.context(), EVE, "sim", CredentialChange("openai"))


def test_another_key_or_price_and_the_same_address_are_no_move(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    same = ProviderChange(
        settings={"api_base": "http://127.0.0.1:9/v1/", "api_key_env": "ANOTHER"}
    )
    assert registered_providers.change_provider(ctx, EVE, "sim", same).answers_since is None
    credentials.put_credential(
        ctx,
        EVE,
        "sim",
        credentials.CredentialChange(value="sk-of-the-same-place"),
    )
    targets.put_provider(ctx, EVE, replace(provider(world), prices={}))
    assert provider(world).moved is None

    move(world)
    before = provider(world).moved
    targets.put_provider(ctx, EVE, replace(provider(world), prices={}, moved=None))
    assert provider(world).moved == before


def test_one_that_was_removed_and_comes_back_has_moved(world: SmallInstallation) -> None:
    ctx = world.context()
    away = ProviderChange("custom", {"api_base": "http://127.0.0.1:7/v1"})
    assert registered_providers.change_provider(ctx, EVE, "away", away).answers_since is None
    world.clock.advance(1)
    with world.store.write() as tx:
        named_models.register_model(ctx, tx, EVE, "away/model")
    registered_providers.remove_provider(ctx, EVE, "away")
    back = registered_providers.change_provider(ctx, EVE, "away", away)
    assert back.answers_since == world.clock.now()


def test_a_clock_that_was_set_back_makes_no_run_younger_than_the_move(
    world: SmallInstallation,
) -> None:
    world.policy = approved()
    world.clock.advance(7200)
    made = world.decided()
    world.clock.jump(-3600)
    by_provider(world, ELSEWHERE, WHY)
    with world.store.read() as tx:
        verdict = Verdicts(tx).get(made.verdict or "")
        assert not proof_validity.assess_proof(world.context(), tx, verdict).holds


def test_over_rest_the_answer_names_the_routes_and_what_waits(world: SmallInstallation) -> None:
    world.policy = approved()
    door = Door(world)
    made = world.decided()
    world.clock.advance(1)
    body = {"apiBase": ELSEWHERE}
    assert "needs a reason" in str(error_of(door.send("PUT", "/providers/sim", json=body), 422))
    done = door.send("PUT", "/providers/sim", json=body | {"reason": WHY}).json()
    assert done["routes"] == ["chat"]
    assert made.id in done["outdated"][0]
    assert done["answersSince"]


def test_what_is_measured_again_after_a_move_is_another_look(world: SmallInstallation) -> None:
    def failing(
        target: Target,
        item: Item,
        epoch: int,
    ) -> str:
        if target.model == "better" and item.id[-1] in "13579":
            raise ProviderFailed("away")
        return answer(target, item, epoch)

    world.script = failing
    made = world.decided()
    assert world.get(made.id).retry_at is not None
    move(world)
    world.clock.advance(FIRST_PAUSE_S)
    world.run_once()
    assert world.get(made.id).phase is ProposalPhase.REJECTED
    assert "provider sim was moved" in world.get(made.id).closed_because
