import base64
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from streamlit.testing.v1 import AppTest

from dashboard import current_user, page_frame
from harness.app.installation import CONFIG_VARIABLE, Installation
from harness.frame.people.access import SYSTEM, Role
from harness.frame.runtime.encryption import new_key
from harness.operations import keys
from harness.providers.credential import ProviderKey, StoredKey
from harness.providers.target import Provider
from router.upstream.transport import UpstreamRequest
from tests.support.router.router_process import (
    ROUTE,
    Routed,
    eventually,
    routed,
)
from tests.support.site.alert_receiver import Receiver
from tests.support.site.processes import free_port, site
from tests.support.site.trace_collector import Collector, collecting
from tests.unit.test_dashboard_page_states import pages

MAIN = Path(current_user.__file__).with_name("main.py")
STORED, ENVIRONMENT, WRONG, HEADER, USERINFO, HOOK, SINK, TRACING = (
    f"sk-SEED{name}-0123456789abcdef"
    for name in (
        "stored",
        "env",
        "wrong",
        "header",
        "user",
        "hook",
        "sink",
        "otlp",
    )
)
READS = (
    "/credentials/providers",
    "/overview",
    "/models",
    "/routes",
    "/routes/chat",
    "/routes/chat/history",
    "/audit",
    "/keys",
    "/alerts",
    "/failovers",
    "/policies",
    "/suites",
    "/evals",
    "/switches",
    "/openapi.json",
    "/providers",
    "/providers/first",
    "/providers/matrix",
    "/check",
)
WORDS = (
    "provider key list --json",
    "config show --json",
    "audit tail --json",
    "doctor --json",
    "model probe first/sim-base",
    "model probe wrong/sim-base",
    "alert list --json",
    "provider show first --json",
    "provider matrix --json",
    "alert test --json",
)
# On a database that is not there; the last one of them is a process that dies.
DATABASE_WORDS = (
    "doctor --json",
    "config show --json",
    "worker r_none --owner w --parent 1",
)


@contextmanager
def simulator(secret: str) -> Iterator[str]:
    port = free_port()
    words = [
        "sim",
        "--port",
        str(port),
        "--key-env",
        "SIM_WANTS",
        "--time-scale",
        "0.02",
    ]
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "swapproof", *words],
        env={**os.environ, "SIM_WANTS": secret},
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: answers(url))
        yield url
    finally:
        process.terminate()
        process.wait(120)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def forms(secret: str) -> tuple[bytes, ...]:
    """As it is, in URLs, and in base64 wherever in a text it begins."""
    inner = [base64.b64encode(b"x" * at + secret.encode())[4:-4] for at in range(3)]
    return (
        secret.encode(),
        quote(secret, safe="").encode(),
        *inner,
    )


def forget() -> None:
    if page_frame.installation.cache_info().currsize:
        page_frame.installation().close()
    page_frame.installation.cache_clear()


def content(file: Path) -> bytes:
    """With what is packed in it: an `.eval` file is a ZIP archive."""
    raw = file.read_bytes()
    if not zipfile.is_zipfile(file):
        return raw
    with zipfile.ZipFile(file) as packed:
        return b"".join([raw, *(packed.read(name) for name in packed.namelist())])


def dashboard_pages() -> dict[str, bytes]:
    forget()
    try:
        app = AppTest.from_file(str(MAIN), default_timeout=120).run()
        found = {}
        for page in pages():
            app.switch_page(f"views/{page}.py").run()
            assert not app.exception, (page, app.exception)
            nodes = [
                element.proto
                for element in app._tree
                if getattr(element, "proto", None) is not None
            ]
            found[f"page {page}"] = b"\n".join(node.SerializeToString() for node in nodes)
    finally:
        forget()
    return found


@dataclass
class Seeded:
    world: Routed
    collector: Collector
    receiver: Receiver


@pytest.fixture
def seeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Seeded]:
    monkeypatch.setenv("SEEDED_KEY", ENVIRONMENT)
    monkeypatch.setenv("SWAPPROOF_SECRET", "SEEDsecret-0123456789abcdef")
    monkeypatch.setenv("SWAPPROOF_METRICS_TOKEN", "SEEDmetrics-0123456789abcdef")
    monkeypatch.setenv("SWAPPROOF_ENCRYPTION_KEYS", new_key())
    monkeypatch.setenv("SEEDED_HOOK", HOOK)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={TRACING}")
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver(status=500).up())
        monkeypatch.setenv(
            "SEEDED_SINK",
            f"json://user:{SINK}@127.0.0.1:{receiver.port}/{SINK}",
        )
        hook = f"http://127.0.0.1:{receiver.port}/hook"
        collector = stack.enter_context(collecting())
        url = stack.enter_context(simulator(STORED))
        kind = {"kind": "sim", "api_base": f"{url}/v1"}
        made = stack.enter_context(
            routed(
                tmp_path,
                "",
                router={
                    "flush_interval_s": 0.2,
                    "workers": 1,
                    "tracing": {"otlp_endpoint": collector.url},
                },
                alerts={
                    "deliver_interval_s": 0.2,
                    "sinks": [
                        {
                            "name": "hook",
                            "webhook": hook,
                            "secret_env": "SEEDED_HOOK",
                        },
                        {"name": "chat", "url_env": "SEEDED_SINK"},
                    ],
                },
                providers={
                    "first": {**kind, "extra_headers": {"x-seeded": HEADER}},
                    "wrong": {**kind, "api_key_env": "SEEDED_KEY"},
                },
                routes={
                    ROUTE: {
                        "incumbent": "first/sim-base",
                        "suites": ["colours"],
                    },
                    "refused": {
                        "incumbent": "wrong/sim-base",
                        "suites": ["colours"],
                    },
                },
            )
        )
        yield Seeded(made, collector, receiver)


# Streamlit says so wherever a script runs without its server.
@pytest.mark.req("C2", "C8", "D4")
@pytest.mark.verify
def test_no_secret_is_in_anything_that_the_system_writes_or_answers(
    seeded: Seeded,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = seeded.world
    installation = world.installation
    said = []
    admin = keys.create_key(
        installation.context,
        SYSTEM,
        "admin",
        secret=installation.secret,
        role=Role.ADMIN,
    )[1]
    seeds = [
        STORED,
        ENVIRONMENT,
        WRONG,
        HEADER,
        USERINFO,
        HOOK,
        SINK,
        TRACING,
        admin,
        world.key,
        *(
            os.environ[f"SWAPPROOF_{secret_name}"]
            for secret_name in ("SECRET", "METRICS_TOKEN")
        ),
        os.environ["SWAPPROOF_ENCRYPTION_KEYS"],
    ]
    world.place.start("control", "serve", "control", wait_for="/readyz")
    bearer = {"authorization": f"Bearer {admin}"}
    with httpx.Client(base_url=world.place.url("control"), headers=bearer) as api:
        path = "/api/v1/credentials/providers"
        said.append(api.put(f"{path}/first", json={"value": STORED}).text)
        said.append(api.put(f"{path}/nowhere", json={"value": WRONG}).text)
        said.append(api.put(f"{path}/first", json={"value": f"{WRONG} x"}).text)
        said.append(api.put(f"{path}/first", json={"value": [WRONG]}).text)
        inside = {
            "kind": "custom",
            "apiBase": f"http://u:{USERINFO}@127.0.0.1:9/v1",
        }
        for place in (f"{path}/inside", "/api/v1/providers/inside"):
            refused = api.put(place, json=inside)
            assert refused.is_client_error
            said.append(refused.text)
        world.start()
        said += [api.get(f"/api/v1{read}").text for read in READS]
        said.append(api.get("/metrics").text)
    chat = {"messages": [{"role": "user", "content": "Colour number 3?"}]}
    mine = {"authorization": f"Bearer {world.key}"}
    with httpx.Client(base_url=f"{world.url}", headers=mine, timeout=60) as client:
        # The provider that refuses its key has an open circuit once a health check was there.
        for model, statuses in ((ROUTE, {200}), ("refused", {502, 503})):
            answer = client.post("/v1/chat/completions", json={"model": model, **chat})
            said.append(f"{answer.headers} {answer.text}")
            assert answer.status_code in statuses
        said.append(client.get("/metrics").text)
    for words in WORDS:
        done = world.place.run(*words.split(), expect=None)
        said.append(done.stdout + done.stderr)
    world.place.close()
    assert seeded.collector.spans
    assert "/hook" in {got.path for got in seeded.receiver.got}
    said += [got.body.decode() for got in seeded.receiver.got]

    written = {f"answer {number}": text.encode() for number, text in enumerate(said)}
    monkeypatch.setenv(CONFIG_VARIABLE, str(world.place.config))
    pages = dashboard_pages()
    assert b"wrong/sim-base" in pages["page providers"] + pages["page overview"]
    written |= pages
    written |= {f"spans {number}": raw for number, raw in enumerate(seeded.collector.raw)}
    # The file that the operator wrote has the header in it.
    files = (f for f in tmp_path.rglob("*") if f.is_file() and f != world.place.config)
    written |= {str(f): content(f) for f in files}
    assert any(name.endswith("snapshot.json") for name in written)
    assert any(name.endswith("swapproof.db") for name in written)
    found = [
        (name, seed[:12])
        for name, data in written.items()
        for seed in seeds
        if any(form in data for form in forms(seed))
    ]
    assert found == []


@pytest.mark.req("C8")
@pytest.mark.parametrize("words", DATABASE_WORDS)
def test_the_databases_password_is_in_nothing_that_a_failing_process_says(
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"postgresql://swapproof:{WRONG}@127.0.0.1:{free_port()}/swapproof"
    monkeypatch.setenv("SWAPPROOF__DATABASE_URL", url)
    monkeypatch.setenv("SWAPPROOF_SECRET", "SEEDsecret-0123456789abcdef")
    with site(tmp_path, {}) as place:
        done = place.run(*words.split(), expect=None)

    said = (done.stdout + done.stderr).encode()
    assert said
    written = [content(path) for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(form in text for text in (said, *written) for form in forms(WRONG))


def test_no_repr_shows_a_secret() -> None:
    key = ProviderKey("K", STORED)
    provider = Provider("p", "custom", "http://h/v1", extra_headers={"x-key": HEADER})

    shown = repr([key, provider, UpstreamRequest(provider, b"", False, key=key)])  # noqa: FBT003 - as there
    shown += repr([StoredKey("p", "default", "ciphertext-of-it"), Installation])

    assert not any(secret in shown for secret in (STORED, HEADER, "ciphertext-of-it"))
