"""A switch keeps or removes exactly the targets that it names, whatever is sent to them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.providers.credential import ProviderKey
from harness.providers.force import (
    KillSwitch,
    SwitchSource,
    parse_environment_switches,
)
from harness.providers.target import Provider, RequestPatch, Target
from harness.routing.table import Canary, Route, RoutingTable, Snapshot
from router.snapshot.compiler import compile_snapshot
from router.upstream.transport import UpstreamRequest
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    completion,
    error,
    streamed,
)
from tests.support.router.asgi_router import CHAT, Door
from tests.support.router.live_router import snapshot, switch_of
from tests.support.sampling import sampled

pytestmark = pytest.mark.req("B11", "D1")
AT = datetime(2026, 11, 20, tzinfo=UTC)
JSON_FORMAT = {"type": "json_object"}


@dataclass(frozen=True)
class Shape:
    """A target, and its provider, both named `shaped`."""

    provider: Provider
    target: Target


def shape(
    kind: str = "custom",
    parameters: dict[str, object] | None = None,
    patch: RequestPatch | None = None,
    *,
    key: str | None = "UP_KEY",
    extra_headers: dict[str, str] | None = None,
    extra_body: dict[str, object] | None = None,
) -> Shape:
    provider = Provider(
        "shaped",
        kind,
        "http://shaped/v1",
        key,
        extra_headers=extra_headers or {},
        extra_body=extra_body or {},
    )
    return Shape(
        provider,
        Target("shaped", "m-shaped", parameters or {}, patch or RequestPatch()),
    )


SHAPES = {
    "plain": shape(),
    "extra body": shape(extra_body={"service_tier": "flex"}),
    "extra headers": shape(extra_headers={"x-team": "support"}),
    "parameters": shape(parameters={"temperature": 0.2}),
    "answer limit of kind openai": shape("openai", {"max_tokens": 64}),
    "patched answer limit of kind openai": shape(
        "openai", patch=RequestPatch({"max_tokens": 64})
    ),
    "extra body and parameters": shape(
        "openai", {"max_tokens": 64}, extra_body={"service_tier": "flex"}
    ),
    "addendum": shape(patch=RequestPatch(prompt_addendum="Answer in French.")),
    "response format": shape(patch=RequestPatch(response_format=JSON_FORMAT)),
    "oauth": shape("github_copilot", key=None, extra_body={"service_tier": "flex"}),
    "stored key": shape("openai", {"max_tokens": 64}, key=None),
}
OTHER = Target("other", "m-other")
THIRD = Target("third", "m-third")
# By role of the shaped target: the arm's targets in order, and whether the first is a canary.
ROLES = {
    "incumbent": (("shaped", "other"), False),
    "canary": (("shaped", "other"), True),
    "fallback": (("other", "shaped"), False),
    "bystander": (("shaped",), False),
}


def snapshot_of(role: str, shaped: Shape) -> Snapshot:
    targets = {
        "shaped": shaped.target,
        "other": OTHER,
        "third": THIRD,
    }
    names, with_canary = ROLES[role]
    ids = [targets[name].id for name in names]
    if with_canary:
        canary = Canary(ids[0], 10_000, "salt", "r-1")
        route = Route("support", 1, ids[1], canary)
    else:
        route = Route("support", 1, ids[0], None, tuple(ids[1:]))
    # The other route makes `third` a provider of the snapshot.
    other = Route("elsewhere", 1, THIRD.id)
    first = snapshot("http://up")
    providers = {
        name: Provider(name, "custom", f"http://{name}/v1", "UP_KEY")
        for name in ("other", "third")
    }
    return replace(
        first,
        table=RoutingTable(
            1,
            {"support": route, "elsewhere": other},
            {target.id: target for target in targets.values()},
        ),
        providers={**providers, "shaped": shaped.provider},
    )


def forces(shaped: Shape) -> Iterator[tuple[str, str]]:
    """Yields each form of a switch, and the provider whose target it names."""
    for target in (shaped.target, OTHER, THIRD):
        yield f"provider:{target.provider}", target.provider
        yield f"target:{target.id}", target.provider
        yield f"target:{target.name}", target.provider
        yield f"target:{target.provider}/{target.model}", target.provider


def sources(force: str) -> Iterator[tuple[Sequence[KillSwitch], Sequence[KillSwitch]]]:
    """Yields the process's own switches and the stored ones."""
    yield (), [switch_of(force)]
    yield (), [switch_of(force, source=SwitchSource.REST, route="support")]
    yield (), [switch_of(force, source=SwitchSource.CONFIG)]
    yield parse_environment_switches(force, AT), ()
    yield parse_environment_switches(f"support={force}", AT), ()


def expected_plan(
    names: Sequence[str],
    named: str,
    *,
    avoids: bool,
) -> Sequence[str]:
    kept = [name for name in names if (name == named) != avoids]
    return kept or names


class Router(Door):
    """A router before providers of which some answer 503. down: their models."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, self.answer)
        self.down: frozenset[str] = frozenset()

    def answer(self, request: UpstreamRequest) -> ScriptedTurn:
        fields = json.loads(request.body)
        if fields["model"] in self.down:
            return error(503, "overloaded")
        return streamed("hello") if fields.get("stream") else completion()

    async def ask(self, *, stream: bool) -> tuple[int, str]:
        body = {
            "model": "support",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": stream,
        }
        status, headers, _ = await self.call(CHAT, json.dumps(body).encode())
        return status, headers.get(b"x-swapproof-target", b"").decode()


# Two shapes whose target is sent otherwise than it is declared.
SAMPLE = ("extra body", "patched answer limit of kind openai")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("form", sampled(SHAPES, SAMPLE))
async def test_a_switch_leads_to_the_target_that_it_names_whatever_the_target_is_sent(
    tmp_path: Path,
    form: str,
    role: str,
) -> None:
    shaped = SHAPES[form]
    found = snapshot_of(role, shaped)
    names = {target.provider: target.name for target in (shaped.target, OTHER, THIRD)}
    keys = {name: [ProviderKey("key", "secret")] for name in found.providers}
    router = Router(tmp_path)

    async def assert_answered_by(provider: str, switches: object) -> None:
        for stream in (False, True):
            seen = await router.ask(stream=stream)
            assert seen == (200, names[provider]), switches

    for prefix in ("", "avoid:"):
        for name, named in forces(shaped):
            plan = expected_plan(ROLES[role][0], named, avoids=bool(prefix))
            for standing, stored in sources(prefix + name):
                thrown = replace(found, switches=tuple(stored))
                router.holder.current = compile_snapshot(thrown, standing, keys)
                await assert_answered_by(plan[0], (standing, stored))


@pytest.mark.parametrize("form", SHAPES)
async def test_a_shaped_fallback_answers_while_a_switch_concerns_another_provider(
    tmp_path: Path, form: str
) -> None:
    shaped = SHAPES[form]
    found = snapshot_of("fallback", shaped)
    keys = {name: [ProviderKey("key", "secret")] for name in found.providers}
    for force in (
        "avoid:provider:third",
        "provider:third",
        "avoid:provider:other",
    ):
        for stream in (False, True):
            router = Router(tmp_path / force.replace(":", "-") / str(stream))
            router.down = frozenset({"m-other"})
            thrown = replace(found, switches=(switch_of(force),))
            router.holder.current = compile_snapshot(thrown, (), keys)

            assert await router.ask(stream=stream) == (
                200,
                shaped.target.name,
            )
