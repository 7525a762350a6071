from dataclasses import replace
from datetime import timedelta

import pytest

from harness.control.context import Context
from harness.control.operations import alerts, queries
from harness.control.operations.alerts import AlertView
from harness.control.providers import checks, credentials, deprecations, registry
from harness.control.providers.credentials import CredentialChange
from harness.control.providers.matrix import MatrixRow, ProviderHealth, build_matrix
from harness.control.routing import routes, targets
from harness.control.routing.targets import ProviderChange
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind, Severity
from harness.domain.providers.catalogue import COLUMNS, Ability, CatalogueEntry, model_abilities
from harness.domain.providers.kinds import PROVIDER_KINDS
from harness.domain.providers.probe import ProbeReply
from harness.domain.routing.capabilities import UNKNOWN_CAPABILITIES, Capabilities
from harness.domain.routing.table import RouteSettings, RouteSuite
from harness.domain.routing.target import Price, Provider, Target
from harness.runtime.encryption import FernetCipher, new_key
from tests.support.control.control_plane import SmallInstallation
from tests.support.providers.scripted_probe import FixedCatalogue, ScriptedProviderProbe

YES, NO, OPEN = Ability
GPT = CatalogueEntry(
    "openai",
    "gpt-x",
    Price(1.0, 2.0, 0.1),
    128_000,
    has=frozenset({"chat", "tools", "reasoning"}),
    lacks=frozenset({"embeddings", "vision"}),
)


@pytest.mark.req("E4")
def test_what_is_known_is_said_and_what_is_not_is_unknown() -> None:
    found = model_abilities(PROVIDER_KINDS["openai"], UNKNOWN_CAPABILITIES, GPT, GPT.price)
    assert list(found) == list(COLUMNS)
    assert (found["chat"], found["vision"], found["stream"]) == (YES, NO, OPEN)
    assert (found["caching"], found["thinking"]) == (YES, YES)
    # The registry's word wins over the catalogue's.
    own = Capabilities(tools=False)
    found = model_abilities(PROVIDER_KINDS["openai"], own, GPT, None)
    assert (found["tools"], found["parallel_tools"], found["caching"]) == (NO, OPEN, OPEN)
    # What the kind does not serve, no model can do.
    found = model_abilities(PROVIDER_KINDS["groq"], UNKNOWN_CAPABILITIES, None, None)
    assert (found["chat"], found["embeddings"]) == (OPEN, NO)


def row(ctx: Context, name: str) -> MatrixRow:
    [found] = [matrix_row for matrix_row in build_matrix(ctx) if matrix_row.provider == name]
    return found


@pytest.mark.req("E4")
def test_the_matrix_joins_registry_catalogue_keys_and_clearance(
    world: SmallInstallation,
) -> None:
    ctx = replace(
        world.context(),
        models=FixedCatalogue(GPT),
        data_classes={"personal": frozenset({"sim"}), "public": frozenset({"openai", "sim"})},
        cipher=FernetCipher([new_key()].copy),
    )
    registry.change_provider(ctx, SYSTEM, "openai", ProviderChange())
    targets.add_target(ctx, SYSTEM, Target("openai", "gpt-x"))
    assert not row(ctx, "openai").configured
    credentials.put_credential(ctx, SYSTEM, "openai", CredentialChange(value="sk-of-the-test"))

    matrix_row = row(ctx, "openai")
    assert (matrix_row.configured, matrix_row.has_key) == (True, True)
    assert matrix_row.data_classes == ["public"]
    [model] = matrix_row.models
    assert (model.model, model.context_window, model.routes) == ("gpt-x", 128_000, [])
    assert row(ctx, "sim").models[0].routes == ["chat"]
    learned, about = "sim/m does not take seed as it is sent", "target sim/m"
    with world.store.write() as tx:
        kind = AlertKind.LEARNED_REPAIR
        alerts.raise_alert(tx, kind, about, subject=about, title=learned, text="t")
    assert row(ctx, "sim").repairs == [learned]
    assert not queries.list_alerts(ctx).items
    bedrock = row(ctx, "bedrock")
    assert (bedrock.configured, bedrock.health) == (False, ProviderHealth.UNKNOWN)
    assert "sk-of" not in repr(build_matrix(ctx))


@pytest.mark.req("E4")
def test_health_is_what_was_found_last(world: SmallInstallation) -> None:
    def answer(provider: Provider, _key: str, _path: str) -> ProbeReply:
        if provider.name == "gone":
            return ProbeReply(None, 5.0, error="no answer")
        return ProbeReply(200, 0.1, b"{}", first_s=0.2)

    ctx = replace(world.context(), door=ScriptedProviderProbe(answer))
    registry.change_provider(
        ctx, SYSTEM, "gone", ProviderChange("custom", "http://127.0.0.1:9/v1")
    )
    assert row(ctx, "gone").health is ProviderHealth.UNKNOWN
    checks.run_check(ctx)
    assert row(ctx, "gone").health is ProviderHealth.UNHEALTHY
    assert row(ctx, "sim").health is ProviderHealth.HEALTHY
    # Another process, which asked nobody, knows as much; for a day.
    assert row(world.context(), "gone").health is ProviderHealth.UNHEALTHY
    world.clock.advance(24 * 3600.0)
    assert row(world.context(), "gone").health is ProviderHealth.UNKNOWN


@pytest.mark.req("E4")
def test_what_failed_with_a_key_that_was_replaced_says_nothing_any_more(
    world: SmallInstallation,
) -> None:
    door = ScriptedProviderProbe(lambda *_: ProbeReply(401, 0.1))
    ctx = replace(world.context(), door=door, cipher=FernetCipher([new_key()].copy))
    credentials.put_credential(
        ctx, SYSTEM, "sim", CredentialChange(value="sk-of-old-0123456789")
    )
    checks.run_check(ctx)
    assert row(ctx, "sim").health is ProviderHealth.UNHEALTHY

    world.clock.advance(1.0)
    credentials.put_credential(
        ctx, SYSTEM, "sim", CredentialChange(value="sk-of-new-0123456789")
    )

    assert row(ctx, "sim").health is ProviderHealth.UNKNOWN


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


@pytest.mark.req("F11")
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


@pytest.mark.req("F11")
def test_it_is_over_when_the_model_is_no_longer_used(ctx: Context) -> None:
    assert [alert.kind for alert in deprecation_alerts(ctx)] == ["model_ends"]

    assert deprecation_alerts(replace(ctx, judges={})) == []


@pytest.mark.req("F11")
def test_a_model_that_no_route_uses_is_not_told(ctx: Context) -> None:
    unused = replace(ctx, judges={})
    targets.add_target(unused, SYSTEM, Target("claude", "claude-sonnet-4"))

    assert deprecation_alerts(unused) == []
