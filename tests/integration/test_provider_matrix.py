from dataclasses import replace

import pytest

from harness.control.context import Context
from harness.control.operations import alerts, queries
from harness.control.providers import checks, credentials, registry
from harness.control.providers.credentials import CredentialChange
from harness.control.providers.matrix import MatrixRow, ProviderHealth, build_matrix
from harness.control.routing import targets
from harness.control.routing.targets import ProviderChange
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from harness.domain.providers.catalogue import COLUMNS, Ability, CatalogueEntry, model_abilities
from harness.domain.providers.kinds import PROVIDER_KINDS
from harness.domain.providers.probe import ProbeReply
from harness.domain.routing.capabilities import UNKNOWN_CAPABILITIES, Capabilities
from harness.domain.routing.target import Price, Provider, Target
from harness.runtime.encryption import FernetCipher, new_key
from tests.support.control.control_plane import SmallInstallation
from tests.support.providers.scripted_probe import FixedCatalogue, ScriptedProviderProbe

pytestmark = pytest.mark.req("E4")
YES, NO, OPEN = Ability
GPT = CatalogueEntry(
    "openai",
    "gpt-x",
    Price(1.0, 2.0, 0.1),
    128_000,
    has=frozenset({"chat", "tools", "reasoning"}),
    lacks=frozenset({"embeddings", "vision"}),
)


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
