"""What changes while the router runs, on all of its workers: kill switches, keys and providers;
and the router without control plane and without database.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import pytest

from tests.acceptance import gateway
from tests.acceptance.conftest import Installing
from tests.acceptance.gateway import (
    alerts,
    chain,
    metric,
    model,
    models,
    served,
)
from tests.acceptance.installation import (
    REQUEST_S,
    Document,
    Installation,
    Process,
    eventually,
)
from tests.acceptance.providers import Simulator

WORKERS: Final = 3
KEYS: Final = {name: f"sk-{name}-0123456789abcdef" for name in gateway.PROVIDERS}
CREDENTIALS: Final = "/credentials/providers"
ROUTES: Final = {
    "forced": chain("forced"),
    "other": chain("other"),
    "keyed": chain("keyed"),
    "warned": chain("warned"),
    "checked": chain("checked"),
    "lasting": chain("lasting", overrides={"subagent": "other"}),
    "personal": {
        "incumbent": models("personal")[1],
        "fallbacks": [models("personal")[2]],
        "data_class": "personal",
    },
}
NOWHERE: Final = "http://127.0.0.1:9/v1"


@dataclass
class World:
    place: Installation
    sims: dict[str, Simulator]
    settings: Document

    def ask(self, route: str, times: int = 1) -> list[httpx.Response]:
        """Answers, each over a connection of its own, which may go to any worker."""
        body = {
            "model": route,
            "messages": [{"role": "user", "content": "Hello"}],
        }
        found = []
        for _ in range(times):
            with httpx.Client(timeout=REQUEST_S, trust_env=False) as client:
                answer = client.post(
                    f"{self.place.url('router')}/v1/chat/completions",
                    json=body,
                    headers={"authorization": f"Bearer {self.place.data_key}"},
                )
            assert answer.status_code == httpx.codes.OK, answer.text
            found.append(answer)
        return found

    def everywhere(
        self,
        route: str,
        target: str,
        switch: str = "",
    ) -> None:
        """Wait until every worker answers the route by this target."""

        def settled() -> bool:
            seen = set()
            for _ in range(100):
                (answer,) = self.ask(route)
                if served(answer) != target:
                    return False
                if switch not in answer.headers.get("x-swapproof-switch", ""):
                    return False
                seen.add(answer.headers["x-swapproof-request-id"].rpartition("-")[0])
                if len(seen) == WORKERS:
                    return True
            return False

        eventually(settled, f"{route} is not answered by {target} on all workers")

    def restart_router(self, **options: Any) -> None:
        self.running("serve-router").stop()
        self.place.serve("router", **options)

    def running(self, name: str) -> Process:
        return next(one for one in self.place.processes if one.name == name and one.is_up())


@pytest.fixture(scope="module")
def world(installing_once: Installing) -> World:
    sims: dict[str, Simulator] = {}

    def settings(made: Installation) -> Document:
        for name in gateway.PROVIDERS:
            sims[name] = Simulator(
                made,
                name=name,
                profiles=gateway.profiles(ROUTES),
                env={"SIM_WANTS": KEYS[name]},
                options=("--key-env", "SIM_WANTS"),
            )
        return {
            "providers": {
                **{name: sim.settings() for name, sim in sims.items()},
                "openai": {
                    "kind": "openai",
                    "api_key_env": "OPENAI_API_KEY",
                },
                "anthropic": {
                    "kind": "anthropic",
                    "api_key_env": "ANTHROPIC_API_KEY",
                },
                "openrouter": {
                    "kind": "openrouter",
                    "api_key_env": "OPENROUTER_API_KEY",
                },
                "ollama": {"kind": "ollama", "api_base": NOWHERE},
            },
            "router": {
                "workers": WORKERS,
                "flush_interval_s": 0.2,
                "health_check_interval_s": 2,
                "breaker": gateway.BREAKER,
                "retry": gateway.RETRY,
            },
            "data_classes": {"personal": ["backup", "spare"]},
            "routes": ROUTES,
        }

    place = installing_once(settings)
    made = World(place, sims, dict(place.settings))
    place.serve("control")
    for name, secret in KEYS.items():
        put = place.api("PUT", f"{CREDENTIALS}/{name}", {"value": secret})
        assert put.status_code == httpx.codes.OK, put.text
    place.serve("router")
    return made


@pytest.fixture
def place(world: World) -> Installation:
    return world.place


# The kill switch


@pytest.mark.req("B11")
def test_one_command_forces_a_provider_on_all_workers_and_another_one_undoes_it(
    world: World, place: Installation
) -> None:
    first, second, _ = models("forced")
    world.everywhere("forced", first)
    place.cli(
        "switch",
        "throw",
        "provider:backup",
        "--reason",
        "main answers nonsense",
    )
    world.everywhere("forced", second, "in_effect")
    world.everywhere("other", models("other")[1], "in_effect")

    (switch,) = [one["switch"]["id"] for one in place.json("switch", "list")[:1]]
    assert "main answers nonsense" in place.cli("switch", "list").out
    place.cli("switch", "lift", switch, "--reason", "main is well again")
    world.everywhere("forced", first)
    world.everywhere("other", models("other")[0])


@pytest.mark.req("B11")
def test_the_api_forces_one_target_on_one_route_until_it_is_lifted(
    world: World, place: Installation
) -> None:
    first, _, third = models("forced")
    body = {
        "force": f"target:{third}",
        "route": "forced",
        "reason": "try it",
    }
    thrown = place.api("POST", "/switches", body)
    assert thrown.status_code == httpx.codes.CREATED, thrown.text
    world.everywhere("forced", third, "in_effect")
    assert served(world.ask("other")[0]) == models("other")[0]

    lifted = place.api("POST", f"/switches/{thrown.json()['id']}/lift", {"reason": "enough"})
    assert lifted.status_code == httpx.codes.OK, lifted.text
    world.everywhere("forced", first)
    viewer = place.management_key("only-looks", "viewer")
    assert place.api("POST", "/switches", body, token=viewer).status_code == 403


@pytest.mark.verify
@pytest.mark.req("B11")
def test_an_environment_variable_or_the_file_forces_a_provider_from_the_start(
    world: World, place: Installation
) -> None:
    first, second, third = models("forced")
    world.restart_router(env={"SWAPPROOF_FORCE": "provider:backup"})
    world.everywhere("forced", second, "in_effect")
    place.configure({**world.settings, "switches": ["forced=provider:spare"]})
    world.restart_router()
    world.everywhere("forced", third, "in_effect")
    assert served(world.ask("other")[0]) == models("other")[0]

    place.configure(world.settings)
    world.restart_router()
    world.everywhere("forced", first)


# Keys


@pytest.mark.req("E5", "D3", "D4", "B9")
def test_when_a_providers_key_is_taken_away_the_next_one_answers_and_no_client_changes(
    world: World, place: Installation
) -> None:
    first, second, _ = models("keyed")
    world.everywhere("keyed", first)
    taken = place.api("DELETE", f"{CREDENTIALS}/main")
    assert taken.json()["hasValue"] is False
    world.everywhere("keyed", second)
    raised = eventually(lambda: [a for a in alerts(place, "our_key") if "main" in str(a)])
    assert "key" in json.dumps(raised[0])

    place.cli("provider", "key", "set", "main", stdin=KEYS["main"])
    world.everywhere("keyed", first)
    eventually(lambda: not [a for a in alerts(place, "our_key") if "main" in str(a)])


@pytest.mark.req("D4", "A5")
def test_a_key_that_the_provider_refuses_fails_nobody_and_a_new_one_serves_at_once(
    world: World, place: Installation
) -> None:
    first, second, _ = models("warned")
    place.api("PUT", f"{CREDENTIALS}/main", {"value": "sk-no-longer-valid-0123"})
    world.everywhere("warned", second)
    place.api("PUT", f"{CREDENTIALS}/main", {"value": KEYS["main"]})
    world.everywhere("warned", first)


@pytest.mark.req("D4")
def test_credentials_are_put_and_created_with_literal_bodies_and_never_shown(
    place: Installation,
) -> None:
    value = "gsk-literal-0123456789abcdef"
    told = []

    def send(
        method: str,
        path: str,
        body: str | None = None,
    ) -> httpx.Response:
        answer = place.client.request(
            method,
            f"{place.url('control')}/api/v1/credentials/providers{path}",
            content=body,
            headers={
                "authorization": f"Bearer {place.admin_key}",
                "content-type": "application/json",
            },
        )
        told.append(answer.text)
        return answer

    created = send(
        "POST",
        "",
        '{"name": "groq", "value": "gsk-literal-0123456789abcdef"}',
    )
    assert created.status_code == httpx.codes.CREATED, created.text
    assert created.json()["hasValue"] is True
    again = send(
        "POST",
        "",
        '{"name": "groq", "value": "gsk-literal-0123456789abcdef"}',
    )
    assert again.status_code == httpx.codes.CONFLICT
    put = send(
        "PUT",
        "/vllm",
        '{"value": "gsk-literal-0123456789abcdef", "apiBase": "http://127.0.0.1:9/v1"}',
    )
    assert (put.status_code, put.json()["hasValue"]) == (200, True)
    assert put.json()["apiBase"] == NOWHERE
    changed = send("PUT", "/groq", '{"value": "gsk-another-0123456789abcdef"}')
    assert changed.status_code == httpx.codes.OK
    listed = {one["name"]: one for one in send("GET", "").json()["items"]}
    assert listed["groq"]["hasValue"] is True
    assert listed["vllm"]["source"] == "stored"
    assert listed["openai"]["hasValue"] is False
    assert send("GET", "/groq").json()["name"] == "groq"
    viewer = place.management_key("reads-only", "viewer")
    refused = place.api("PUT", f"{CREDENTIALS}/groq", {"value": value}, token=viewer)
    assert refused.status_code == httpx.codes.FORBIDDEN
    stranger = place.api("GET", CREDENTIALS, token=place.data_key)
    assert stranger.status_code in (401, 403)
    without = send("PUT", "/azure_openai", '{"value": "gsk-literal-0123456789abcdef"}')
    assert without.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert "base" in without.text

    told.append(place.cli("provider", "key", "list").out)
    told.append(place.cli("provider", "show", "groq", "--json").out)
    told.append(place.api("GET", "/audit?limit=1000").text)
    told.append(place.api("GET", "/providers").text)
    for text in told:
        assert value not in text
        assert "gsk-another" not in text
    for file in written(place):
        content = file.read_bytes()
        assert value.encode() not in content, file
        assert not [name for name, key in KEYS.items() if key.encode() in content], file


def written(place: Installation) -> Iterator[Path]:
    """All that the installation has written: database, snapshot, logs."""
    for file in place.folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            yield file


# Providers


@pytest.mark.req("D3", "D1")
def test_a_provider_and_a_route_are_added_while_the_router_serves(place: Installation) -> None:
    with simulator(place, "late") as late:
        put = place.api(
            "PUT",
            "/providers/late",
            {
                "kind": "sim",
                "apiBase": f"{late.url}/v1",
                "extraHeaders": {"x-team": "blue"},
            },
        )
        assert put.status_code in (200, 201), put.text
        assert "blue" not in place.api("GET", "/providers/late").text
        added = place.api("POST", "/models", {"provider": "late", "model": "late-model"})
        assert added.status_code in (200, 201), added.text
        words = ("--incumbent", "late/late-model", "--suite", "tickets")
        place.cli("route", "create", "newcomer", *words)

        def answers() -> bool:
            answer = place.chat("newcomer")
            return answer.status_code == httpx.codes.OK and served(answer) == "late/late-model"

        eventually(answers)
        place.cli("provider", "remove", "late", code=6)
    wrong = place.api("PUT", "/providers/own", {"kind": "custom"})
    assert wrong.status_code == httpx.codes.UNPROCESSABLE_ENTITY


@contextmanager
def simulator(place: Installation, name: str) -> Iterator[Simulator]:
    made = Simulator(place, name=name, profiles={f"{name}-model": {"skill": 0.7}})
    yield made
    made.kill()


@pytest.mark.verify
@pytest.mark.req("D2")
def test_a_models_name_is_resolved_in_the_promised_order_and_each_rule_is_explained(
    place: Installation,
) -> None:
    def takes(name: str) -> tuple[str, str]:
        """The rule that took the name, and the provider."""
        rules = place.api("GET", f"/models/resolve?name={name}").json()
        (taken,) = [rule for rule in rules["rules"] if rule["outcome"] == "took"]
        return taken["rule"], rules["provider"]

    assert takes("openai:gpt-4o-mini") == ("prefix", "openai")
    assert takes("openrouter/anthropic/claude-sonnet-4-5") == (
        "prefix",
        "openrouter",
    )
    assert takes("claude-sonnet-4-5") == ("keyword", "anthropic")
    assert takes("gpt-4o") == ("keyword", "openai")
    assert takes("my-own-model") == ("local", "ollama")
    assert takes("some-vendor/some-model") == ("gateway", "openrouter")
    told = place.json("model", "resolve", "some-vendor/some-model")
    assert told["provider"] == "openrouter"
    order = ["forced", "prefix", "keyword", "local", "gateway", "oauth"]
    assert [rule["rule"] for rule in told["rules"]] == order
    assert all(rule["reason"] for rule in told["rules"])
    unsigned = place.cli("model", "resolve", "openai_codex/gpt-5", code=1)
    assert all(rule in unsigned.out for rule in order)

    body = {"force": "provider:backup", "reason": "an outage elsewhere"}
    thrown = place.api("POST", "/switches", body).json()["id"]
    assert takes("gpt-4o") == ("forced", "backup")
    place.api("POST", f"/switches/{thrown}/lift", {"reason": "over"})
    assert takes("gpt-4o") == ("keyword", "openai")


@pytest.mark.req("E4", "D7")
def test_the_matrix_says_what_each_provider_can_do_and_how_it_is(place: Installation) -> None:
    place.api("POST", "/check")
    rows = {
        row["provider"]: row for row in place.api("GET", "/providers/matrix").json()["items"]
    }
    assert rows["main"]["configured"] is True
    assert rows["main"]["health"] == "healthy"
    assert rows["openai"]["hasKey"] is False
    for kind in (
        "openai",
        "anthropic",
        "openrouter",
        "ollama",
        "bedrock",
        "gemini",
    ):
        assert kind in {row["kind"] for row in rows.values()}
    abilities = rows["main"]["models"][0]["abilities"]
    assert {
        "chat",
        "stream",
        "tools",
        "parallel_tools",
        "json_schema",
    } <= set(abilities)
    assert {"vision", "embeddings", "caching", "thinking"} <= set(abilities)
    assert set(abilities.values()) <= {"yes", "no", "unknown"}
    assert "main" in place.cli("provider", "matrix").out


@pytest.mark.verify
@pytest.mark.req("D5")
def test_the_self_test_names_what_is_wrong_with_a_provider(
    world: World, place: Installation
) -> None:
    world.sims["spare"].kill()
    checked = place.api("POST", "/check").json()
    world.sims["spare"].start()
    found = {one["provider"]: one for one in checked["providers"]}
    assert (
        checked["ok"],
        found["main"]["ok"],
        found["spare"]["ok"],
    ) == (False, True, False)
    subjects = {finding["subject"] for finding in found["main"]["findings"]}
    assert {"key", "reachable", "model"} <= subjects
    failed = [one for one in found["spare"]["findings"] if one["status"] == "fail"]
    assert any(one["next_step"] for one in failed)
    assert not any(secret in json.dumps(checked) for secret in KEYS.values())
    assert place.cli("doctor", code=None).code in (0, 1)


@pytest.mark.req("D8")
def test_data_of_a_class_reach_no_provider_that_may_not_see_them(
    world: World, place: Installation
) -> None:
    first, second, third = models("personal")
    words = ("--waive", "not measured", "--for", "1d", "--reason", "a spare")
    refused = place.cli("route", "fallback", "add", "personal", first, *words, code=None)
    assert refused.code != 0
    assert "personal" in refused.err
    body = {"force": "provider:main", "reason": "by mistake"}
    thrown = place.api("POST", "/switches", body).json()["id"]
    world.everywhere("other", models("other")[0], "in_effect")
    assert served(world.ask("personal")[0]) == second
    place.api("POST", f"/switches/{thrown}/lift", {"reason": "over"})
    asked = world.sims["main"].stats()["models"].get(model(first), {})
    assert not asked.get("requests")
    world.sims["backup"].fault(model(second), "status", status=503)
    assert served(world.ask("personal")[0]) == third
    world.sims["backup"].heal()


@pytest.mark.req("D6")
def test_a_request_of_another_kind_goes_to_the_route_that_the_override_names(
    place: Installation,
) -> None:
    plain = place.chat("lasting")
    subagent = place.chat("lasting", headers={"x-swapproof-kind": "subagent"})

    assert plain.headers["x-swapproof-route"] == "lasting"
    assert subagent.headers["x-swapproof-route"] == "other"
    assert subagent.headers["x-swapproof-kind"] == "subagent"
    wrong = place.chat("lasting", headers={"x-swapproof-kind": "nonsense"})
    assert wrong.status_code == httpx.codes.BAD_REQUEST


@pytest.mark.req("B10", "B4")
def test_a_health_check_sees_that_a_target_fails_and_that_it_is_back_without_a_user(
    world: World, place: Installation
) -> None:
    *_, third = models("checked")

    def up() -> float:
        return metric(place, "swapproof_health_check_up", target=third)

    eventually(lambda: up() == WORKERS)
    world.sims["spare"].fault(model(third), "status", status=503)
    eventually(lambda: up() == 0)
    world.sims["spare"].heal()
    eventually(lambda: up() == WORKERS)


# Without control plane and database


@pytest.mark.req("D3")
def test_without_control_plane_and_database_the_router_serves_the_last_good_revision(
    world: World, place: Installation
) -> None:
    first, *_ = models("lasting")
    world.everywhere("lasting", first)
    revision = world.ask("lasting")[0].headers["x-swapproof-revision"]
    world.running("serve-control").stop()
    world.everywhere("lasting", first)

    with database_away(place):
        for _ in range(20):
            assert served(world.ask("lasting")[0]) == first
        router = world.running("serve-router")
        family = router.descendants()
        router.kill()
        for child in family:
            eventually(ended(child))
        place.serve("router")
        world.everywhere("lasting", first)
        assert world.ask("lasting")[0].headers["x-swapproof-revision"] == revision
        assert place.chat("lasting", key="sk-sg-wrong").status_code == 401
    place.serve("control")
    eventually(lambda: readyz(place) == "ok")
    world.everywhere("lasting", first)


def ended(child: psutil.Process) -> Callable[[], bool]:
    return lambda: not child.is_running()


def readyz(place: Installation) -> str:
    return str(place.client.get(f"{place.url('router')}/readyz").json()["status"])


@contextmanager
def database_away(place: Installation) -> Iterator[None]:
    """The database's files have another name until the block ends."""
    file = place.database.file
    files = [path for path in file.parent.iterdir() if path.name.startswith(file.name)]
    for path in files:
        path.rename(path.with_name(f"away-{path.name}"))
    try:
        yield
    finally:
        for path in files:
            path.with_name(f"away-{path.name}").rename(path)
