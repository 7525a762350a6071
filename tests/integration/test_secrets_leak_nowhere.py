"""Recognisable secrets are put everywhere one can be; then all that was written is searched."""

import base64
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from harness import bootstrap
from harness.control import keys
from harness.domain.access import SYSTEM, Role
from harness.domain.credentials import ProviderKey, StoredKey
from harness.domain.targets import Provider
from harness.runtime.encryption import new_key
from router.ports import UpstreamRequest
from tests.integration.test_key_taken_away import simulator
from tests.router_site import ROUTE, Routed, routed

STORED, ENVIRONMENT, WRONG, HEADER = (
    f"sk-SEED{name}-0123456789abcdef" for name in ("stored", "env", "wrong", "header")
)
READS = (
    *("/credentials/providers", "/overview", "/models", "/routes", "/routes/chat"),
    *("/routes/chat/history", "/audit", "/keys", "/alerts", "/failovers", "/policies"),
    *("/suites", "/evals", "/switches", "/openapi.json"),
    *("/providers", "/providers/first", "/providers/matrix", "/check"),
)
WORDS = (
    *("credential list --json", "config show --json", "audit tail --json"),
    *("doctor --json", "model probe first/sim-base", "model probe wrong/sim-base"),
    *("alert list --json", "provider show first --json", "provider matrix --json"),
)


def forms(secret: str) -> tuple[bytes, ...]:
    """As it is, in URLs, and in base64 wherever in a text it begins."""
    inner = [base64.b64encode(b"x" * at + secret.encode())[4:-4] for at in range(3)]
    return (secret.encode(), quote(secret, safe="").encode(), *inner)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Routed]:
    monkeypatch.setenv("SEEDED_KEY", ENVIRONMENT)
    monkeypatch.setenv("SWAPGATE_SECRET", "SEEDsecret-0123456789abcdef")
    monkeypatch.setenv("SWAPGATE_METRICS_TOKEN", "SEEDmetrics-0123456789abcdef")
    monkeypatch.setenv("SWAPGATE_ENCRYPTION_KEYS", new_key())
    with ExitStack() as stack:
        url = stack.enter_context(simulator(STORED))
        kind = {"kind": "sim", "api_base": f"{url}/v1"}
        yield stack.enter_context(
            routed(
                tmp_path,
                "",
                router={"flush_interval_s": 0.2, "workers": 1},
                providers={"first": kind, "wrong": {**kind, "api_key_env": "SEEDED_KEY"}},
                routes={
                    ROUTE: {"incumbent": "first/sim-base", "suites": ["colours"]},
                    "refused": {"incumbent": "wrong/sim-base", "suites": ["colours"]},
                },
            )
        )


@pytest.mark.req("C2", "C8", "D4")
def test_no_secret_is_in_anything_that_the_system_writes_or_answers(
    world: Routed, tmp_path: Path
) -> None:
    installation, said = world.installation, []
    admin = keys.create(
        installation.context, SYSTEM, "admin", secret=installation.secret, role=Role.ADMIN
    )[1]
    seeds = [
        *(STORED, ENVIRONMENT, WRONG, admin, world.key),
        *(os.environ[f"SWAPGATE_{each}"] for each in ("SECRET", "METRICS_TOKEN")),
        os.environ["SWAPGATE_ENCRYPTION_KEYS"],
    ]
    world.place.start("control", "serve", "control", wait_for="/readyz")
    bearer = {"authorization": f"Bearer {admin}"}
    with httpx.Client(base_url=world.place.url("control"), headers=bearer) as api:
        path = "/api/v1/credentials/providers"
        said.append(api.put(f"{path}/first", json={"value": STORED}).text)
        said.append(api.put(f"{path}/nowhere", json={"value": WRONG}).text)
        said.append(api.put(f"{path}/first", json={"value": f"{WRONG} x"}).text)
        said.append(api.put(f"{path}/first", json={"value": [WRONG]}).text)
        world.start()
        said += [api.get(f"/api/v1{each}").text for each in READS]
        said.append(api.get("/metrics").text)
    chat = {"messages": [{"role": "user", "content": "Colour number 3?"}]}
    mine = {"authorization": f"Bearer {world.key}"}
    with httpx.Client(base_url=f"{world.url}", headers=mine, timeout=60) as client:
        for model, status in ((ROUTE, 200), ("refused", 502)):
            answer = client.post("/v1/chat/completions", json={"model": model, **chat})
            said.append(f"{answer.headers} {answer.text}")
            assert answer.status_code == status
        said.append(client.get("/metrics").text)
    for words in WORDS:
        done = world.place.run(*words.split(), expect=None)
        said.append(done.stdout + done.stderr)
    world.place.close()

    written = {f"answer {number}": each.encode() for number, each in enumerate(said)}
    written |= {str(f): f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    assert any(name.endswith("snapshot.json") for name in written)
    assert any(name.endswith("swapgate.db") for name in written)
    found = [
        (name, seed[:12])
        for name, data in written.items()
        for seed in seeds
        if any(form in data for form in forms(seed))
    ]
    assert found == []


def test_no_repr_shows_a_secret() -> None:
    key = ProviderKey("K", STORED)
    provider = Provider("p", "custom", "http://h/v1", extra_headers={"x-key": HEADER})

    shown = repr([key, provider, UpstreamRequest(provider, b"", False, key=key)])  # noqa: FBT003 - as there
    shown += repr([StoredKey("p", "default", "ciphertext-of-it"), bootstrap.Installation])

    assert not any(secret in shown for secret in (STORED, HEADER, "ciphertext-of-it"))
