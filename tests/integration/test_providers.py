from dataclasses import replace
from pathlib import Path

import openai
import pytest

from evals.runner.chat_completions import request_body
from harness.app.secret_files import ENCRYPTION_VARIABLE
from harness.frame.errors import Conflict, InputError, NotAllowed, NotFound
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.runtime.encryption import FernetCipher, new_key
from harness.frame.signing.audit_log import AuditLog
from harness.proposals import eval_queue
from harness.providers.records import Credentials
from harness.providers.registry import credentials, registered_providers, targets
from harness.providers.registry.targets import ProviderChange
from harness.providers.target import Provider, Target
from harness.routing.control import routes
from harness.routing.route_settings import RouteSettings, RouteSuite
from tests.support.control.control_plane import SmallInstallation
from tests.support.providers.scripted_upstream import completion, running_upstream
from tests.support.router.router_process import ask, eventually, routed
from tests.support.site.management_api import Door, error_of

pytestmark = pytest.mark.req("D1", "D3")
VERA = Actor("vera", Role.VIEWER, "pr_vera")
FLEX = ProviderChange(extra_body={"service_tier": "flex"})


def test_a_provider_of_a_kind_needs_its_name_alone(world: SmallInstallation) -> None:
    made = registered_providers.change_provider(
        world.context(), SYSTEM, "groq", ProviderChange()
    )
    assert (made.kind, made.api_base) == (
        "groq",
        "https://api.groq.com/openai/v1",
    )
    assert made.api_key_env == "GROQ_API_KEY"
    assert world.store.snapshot().providers["groq"].kind == "groq"


def test_what_is_not_named_stays_as_it_is(world: SmallInstallation) -> None:
    ctx = world.context()
    change = ProviderChange(
        "custom",
        {"api_base": "http://10.0.0.8/v1", "api_key_env": "K"},
        {"x-a": "hush"},
        {"n": 1},
    )
    registered_providers.change_provider(ctx, SYSTEM, "mine", change, create=True)
    after = registered_providers.change_provider(
        ctx, SYSTEM, "mine", ProviderChange(settings={"api_key_env": "L"}), create=False
    )
    assert (after.api_base, after.api_key_env) == ("http://10.0.0.8/v1", "L")
    assert (after.extra_headers, after.extra_body) == (["x-a"], {"n": 1})


NONSENSE: tuple[tuple[str, ProviderChange, str], ...] = (
    ("mine", ProviderChange(), "unknown kind"),
    ("mine", ProviderChange("custom"), "needs an api_base"),
    *(
        (name, ProviderChange("openai"), "is not a provider name")
        for name in (
            "a/b",
            "a:b",
            "",
            " a",
            "-a",
            "ü",
            "\N{ROCKET}",
            "z" * 64,
            "a\n",
        )
    ),
    ("openai", ProviderChange(extra_body={"model": "m"}), "'model'"),
    ("sim", ProviderChange("openai"), "needs a reason"),
    (
        "openai",
        ProviderChange(settings={"api_base": "http://169.254.169.254"}),
        "allow_addresses",
    ),
)


def test_what_makes_no_sense_is_refused(world: SmallInstallation) -> None:
    for name, change, reason in NONSENSE:
        with pytest.raises(InputError, match=reason):
            registered_providers.change_provider(world.context(), SYSTEM, name, change)


def test_adding_is_for_new_ones_and_setting_for_known_ones(world: SmallInstallation) -> None:
    with pytest.raises(Conflict, match="provider set sim"):
        registered_providers.change_provider(
            world.context(), SYSTEM, "sim", ProviderChange(), create=True
        )
    with pytest.raises(NotFound, match="configured: sim"):
        registered_providers.change_provider(
            world.context(), SYSTEM, "groq", ProviderChange(), create=False
        )
    with pytest.raises(NotAllowed):
        registered_providers.change_provider(world.context(), VERA, "groq", ProviderChange())


def test_extra_body_is_beneath_what_the_target_says() -> None:
    up = Provider("up", "openai", "http://h", extra_body={"a": 1, "temperature": 0.9})
    target = Target("up", "m", {"temperature": 0.1})
    sent = request_body(up.as_sent(target), [{"role": "user", "content": "?"}], {"a": 0})
    assert (sent["a"], sent["temperature"]) == (1, 0.1)
    assert replace(up, extra_body={}).as_sent(target).parameters == target.parameters


def test_extra_body_does_not_change_under_what_was_proven_with_it(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    with pytest.raises(Conflict, match=r"route chat"):
        registered_providers.change_provider(ctx, SYSTEM, "sim", FLEX)
    registered_providers.change_provider(
        ctx, SYSTEM, "other", ProviderChange("sim", {"api_base": "http://127.0.0.1:9/v1"})
    )
    registered_providers.change_provider(ctx, SYSTEM, "other", FLEX)  # nothing was asked yet
    targets.add_target(ctx, SYSTEM, Target("other", "good"))
    eval_queue.start_run(ctx, SYSTEM, "colours", "other/good", items=5)
    with pytest.raises(Conflict, match=r"eval runs"):
        registered_providers.change_provider(
            ctx, SYSTEM, "other", ProviderChange(extra_body={})
        )


def test_a_provider_in_use_is_not_removed(world: SmallInstallation) -> None:
    ctx = world.context()
    with pytest.raises(Conflict, match="route chat"):
        registered_providers.remove_provider(ctx, SYSTEM, "sim")
    registered_providers.change_provider(ctx, SYSTEM, "groq", ProviderChange())
    targets.add_target(ctx, SYSTEM, Target("groq", "llama"))
    with pytest.raises(NotAllowed):
        registered_providers.remove_provider(ctx, VERA, "groq")

    registered_providers.remove_provider(ctx, SYSTEM, "groq")

    assert [provider.name for provider in registered_providers.list_providers(ctx)] == ["sim"]
    with pytest.raises(NotFound, match="groq"):
        eval_queue.start_run(ctx, SYSTEM, "colours", "groq/llama", items=5)
    with world.store.read() as tx:
        assert AuditLog(tx).tail(1)[0].action == "provider.remove"


def test_with_a_provider_its_stored_keys_go(world: SmallInstallation) -> None:
    ctx = replace(world.context(), cipher=FernetCipher([new_key()].copy))
    credentials.put_credential(
        ctx,
        SYSTEM,
        "groq",
        credentials.CredentialChange(value="gsk-of-the-test"),
    )
    registered_providers.remove_provider(ctx, SYSTEM, "groq")
    with world.store.read() as tx:
        assert [credential.ciphertext for credential in Credentials(tx).all()] == [""]
    registered_providers.change_provider(ctx, SYSTEM, "groq", ProviderChange())
    assert not credentials.get_credentials(ctx, "groq").has_value


@pytest.mark.spine
def test_the_api_speaks_camel_case_and_hides_the_headers_values(
    world: SmallInstallation,
) -> None:
    door = Door(world)
    sent = {
        "kind": "vllm",
        "apiBase": "http://10.0.0.8:8000/v1",
        "extraHeaders": {"x-team": "hush-hush"},
        "extraBody": {"top_k": 5},
    }
    answer = door.send("PUT", "/providers/gpu", json=sent)
    assert answer.status_code == 200
    assert answer.json()["extraHeaders"] == ["x-team"]
    assert answer.json()["extraBody"] == {"top_k": 5}
    assert "hush" not in answer.text + door.send("GET", "/providers").text
    assert error_of(door.send("PUT", "/providers/gpu", json={"api_base": "x"}), 422)
    metadata = {"apiBase": "http://[::ffff:169.254.169.254]"}
    assert error_of(door.send("PUT", "/providers/gpu", json=metadata), 422)
    assert door.send("DELETE", "/providers/gpu").status_code == 204
    assert error_of(door.send("DELETE", "/providers/sim"), 409)["type"] == "Conflict"


@pytest.mark.spine
def test_a_provider_is_added_and_changed_while_the_router_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENCRYPTION_VARIABLE, new_key())
    with running_upstream() as upstream:
        upstream.turns = {"m-1": completion("hello")}
        with routed(tmp_path, upstream.url.removesuffix("/v1")) as world:
            world.start()
            pid = world.place.pid("router")
            ctx = world.installation.context
            added = ProviderChange(
                "vllm",
                {"api_base": upstream.url},
                {"x-team": "support"},
                {"top_k": 5},
            )
            registered_providers.change_provider(ctx, SYSTEM, "gpu", added, create=True)
            settings = RouteSettings(suites=(RouteSuite("colours"),))
            routes.create_route(ctx, SYSTEM, "fresh", "gpu/m-1", settings=settings)
            with world.client() as client:

                def is_served() -> bool:
                    try:
                        return ask(client, route="fresh") == "hello"
                    except openai.NotFoundError:
                        return False

                eventually(is_served, timeout_s=60)
                first = upstream.asked_for("m-1")[-1]
                changed = ProviderChange(
                    extra_headers={"x-team": "research"}, reason="another team"
                )
                registered_providers.change_provider(ctx, SYSTEM, "gpu", changed)

                def is_changed() -> bool:
                    return is_served() and upstream.asked[-1].headers["x-team"] == "research"

                eventually(is_changed, timeout_s=60)
            assert world.place.pid("router") == pid
    assert (first.headers["x-team"], first.json["top_k"]) == ("support", 5)
    assert upstream.asked[-1].json["top_k"] == 5
