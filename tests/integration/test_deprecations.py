"""The deprecation radar from a route to its alert, and until nobody uses the model (F11)."""

from dataclasses import replace
from datetime import timedelta

import pytest

from harness.control.context import Context
from harness.control.operations import queries
from harness.control.operations.alerts import AlertView
from harness.control.providers import deprecations
from harness.control.routing import routes, targets
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import Severity
from harness.domain.providers.catalogue import CatalogueEntry
from harness.domain.routing.table import RouteSettings, RouteSuite
from harness.domain.routing.target import Price, Provider, Target
from tests.support.control.control_plane import SmallInstallation
from tests.support.providers.scripted_probe import FixedCatalogue

pytestmark = pytest.mark.req("F11")
ABLE = frozenset({"chat", "tools"})


@pytest.fixture
def ctx(world: SmallInstallation) -> Context:
    day = world.clock.now().date() + timedelta(days=40)
    known = FixedCatalogue(
        CatalogueEntry(
            "anthropic", "claude-sonnet-4", Price(3, 15), 200_000, ABLE, end_date=day
        ),
        CatalogueEntry("anthropic", "claude-sonnet-5", Price(2, 10), 400_000, ABLE),
    )
    made = replace(
        world.context(), models=known, judges={"colours": Target("claude", "claude-sonnet-4")}
    )
    targets.put_provider(made, SYSTEM, Provider("claude", "anthropic", "http://127.0.0.1:9"))
    return made


def deprecation_alerts(ctx: Context) -> list[AlertView]:
    deprecations.update_deprecation_alerts(ctx)
    return list(queries.list_alerts(ctx, open_only=True))


def test_a_model_in_use_that_ends_is_told_with_its_successor(
    ctx: Context, world: SmallInstallation
) -> None:
    targets.add_target(ctx, SYSTEM, Target("claude", "claude-sonnet-4"))
    settings = RouteSettings(suites=(RouteSuite("colours"),))
    routes.create_route(ctx, SYSTEM, "essays", "claude/claude-sonnet-4", settings=settings)

    (alert,) = deprecation_alerts(ctx)
    (again,) = deprecation_alerts(ctx)

    assert (alert.kind, alert.severity) == ("model_ends", Severity.WARNING)
    assert alert.title.startswith("claude/claude-sonnet-4 ends on ")
    assert "in 40 days" in alert.title
    assert "incumbent of essays" in alert.text
    assert "judge of suite colours, for chat" in alert.text
    assert "claude/claude-sonnet-5, at $2.00 in and $10.00 out" in alert.text
    assert "a window of 400000 tokens" in alert.text
    assert again.count == 1

    world.clock.advance(timedelta(days=40).total_seconds())
    (late,) = deprecation_alerts(ctx)

    assert (late.kind, late.severity) == ("model_ended", Severity.CRITICAL)
    assert "has ended on" in late.title


def test_it_is_over_when_the_model_is_no_longer_used(ctx: Context) -> None:
    assert [alert.kind for alert in deprecation_alerts(ctx)] == ["model_ends"]

    assert deprecation_alerts(replace(ctx, judges={})) == []


def test_a_model_that_no_route_uses_is_not_told(ctx: Context) -> None:
    unused = replace(ctx, judges={})
    targets.add_target(unused, SYSTEM, Target("claude", "claude-sonnet-4"))

    assert deprecation_alerts(unused) == []
