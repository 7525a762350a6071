"""A proposal says which part of the route's requests the candidate cannot take."""

from collections.abc import Sequence
from dataclasses import replace

from harness.frame.people.access import SYSTEM
from harness.gate.online.observation import NEED, AskedName
from harness.proposals import submission
from harness.proposals.submission import ProposalRequest
from harness.providers.models.capabilities import Capabilities, Prefill
from harness.providers.records import Providers
from harness.providers.registry import targets
from harness.routing.records.observations import Observations
from tests.support.control.bare_installation import BareInstallation

ASKED = {"": 200, "chat": 200, "prefill": 62, "tools": 20, "stream": 150}


def untaken(world: BareInstallation) -> Sequence[str]:
    request = ProposalRequest("chat", "sim/better", reason="cheaper")
    return submission.preview_proposal(world.context(), request).untaken


def declare(world: BareInstallation, **models: Capabilities) -> None:
    with world.store.read() as tx:
        sim = Providers(tx).all()["sim"]
    targets.put_provider(world.context(), SYSTEM, replace(sim, models=models))


def record(world: BareInstallation) -> None:
    day = world.clock.now().date()
    rows = [AskedName(f"{NEED}{name}", day, "chat", number) for name, number in ASKED.items()]
    with world.store.write() as tx:
        Observations(tx).append([], [], asked_names=rows)


def test_the_share_of_requests_with_a_lost_ability_is_said(world: BareInstallation) -> None:
    lacking = Capabilities(tools=False, json_schema=False, prefill=Prefill.BEGINS_ANEW)
    declare(world, better=lacking)
    record(world)
    period = "of chat's requests of the last 7 days"
    assert untaken(world) == (
        f"31 % {period} prefill their answer; the candidate has no prefill",
        f"10 % {period} have tools; the candidate has no tools",
    )


def test_without_records_the_share_is_unknown_and_said_to_be(world: BareInstallation) -> None:
    declare(world, better=Capabilities(tools=False, vision=False))
    (sentence,) = untaken(world)
    assert sentence == (
        "the candidate has no tools, vision; which part of chat's requests needs it is "
        "unknown, because no router recorded needs in the last 7 days"
    )


def test_what_the_incumbent_lacks_too_is_no_loss(world: BareInstallation) -> None:
    lacking = Capabilities(tools=False)
    declare(world, base=lacking, better=lacking)
    record(world)
    assert untaken(world) == ()
