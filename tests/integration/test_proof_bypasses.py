from dataclasses import replace

import pytest
import sqlalchemy as sa

from harness.app.store.tables import metadata
from harness.canary import operations
from harness.frame.alerts.alert import Alert, AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.people.access import Actor, Role
from harness.gate.online.rollout import RolloutSignal
from harness.proposals.registration import look_counts
from harness.providers.models import model_names
from harness.providers.target import Provider
from harness.routing.proposal import ProposalPhase
from harness.routing.records.routes import Routing
from tests.support.control.control_plane import SmallInstallation
from tests.support.store.tampering import owned, row

pytestmark = pytest.mark.req("A7", "F1", "F2")
EVE = Actor("eve", Role.ADMIN, "pr_eve")


def test_no_older_row_of_a_proposal_opens_the_canary_again_that_a_person_ended(
    world: SmallInstallation,
) -> None:
    made = world.propose("sim/better").id
    world.run_once()
    with owned(world.store) as db:
        older = row(db, "proposal", id=made)
    assert older["phase"] == ProposalPhase.EVALUATING.value
    route = world.until_decided(made).route
    operations.operate(world.context(), EVE, route, RolloutSignal.ABORT, "harm that I saw")
    with owned(world.store) as db:
        db.execute(sa.text("DELETE FROM rollout"))
        table = metadata.tables["proposal"]
        db.execute(sa.update(table).where(table.c.id == made).values(**older))

    world.until_decided(made)

    assert world.get(made).phase is ProposalPhase.REJECTED
    assert world.get(made).verdict is None
    with world.store.read() as tx:
        canaries = [record.route.canary for record in Routing(tx).history(route)]
    assert sum(canary is not None for canary in canaries) == 1


UNREADABLE = [
    {"kind": "nonsense"},
    {"last_seen": 9 * 10**18},
    {"sources": "no json"},
]


@pytest.mark.parametrize("change", UNREADABLE, ids=str)
def test_an_alert_that_cannot_be_read_stops_no_canary(
    world: SmallInstallation, change: dict[str, object]
) -> None:
    ctx = world.context()
    made = world.decided("sim/better")
    world.run_once(ctx)
    assert world.get(made.id).phase is ProposalPhase.CANARY
    with world.store.write() as tx:
        Alerts(tx).fold(
            [
                Alert(
                    AlertKind.JOB_FAILED,
                    "s",
                    "k",
                    "t",
                    "x",
                    ctx.clock.now(),
                    "one",
                )
            ]
        )
    (name, value), *_ = change.items()
    statement = sa.text(f"UPDATE alert SET {name} = :value")  # noqa: S608 - of this file
    with owned(world.store) as db:
        db.execute(statement, {"value": value})

    world.feed(failing=True, blocks=4)
    world.clock.advance(60)
    world.run_once(ctx)

    assert world.get(made.id).phase is ProposalPhase.ROLLED_BACK


def test_a_verdict_is_a_look_also_where_its_samples_are_gone(world: SmallInstallation) -> None:
    made = world.decided("sim/worse")

    with world.store.read() as tx:
        assert look_counts.has_looked(tx, replace(made, runs={}))


@pytest.mark.parametrize(
    "base",
    [
        "http://localhost:9/v1",
        "http://127.1:9/v1",
        "http://2130706433:9/v1",
        "http://[::ffff:127.0.0.1]:9/v1",
        "http://[::1]:9/v1",
        "http://0x7f000001:9/v1",
    ],
)
def test_another_spelling_of_an_address_is_the_same_host(base: str) -> None:
    one = Provider("a", "custom", "http://127.0.0.1:9/v1", None)
    other = Provider("a", "custom", base, None)

    assert model_names.provider_host(one) == model_names.provider_host(other)
    assert (
        model_names.provider_host(replace(one, api_base="http://api.example/v1"))
        == "api.example"
    )
