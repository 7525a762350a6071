"""A project's key asks its own routes, by their short names; to it there are no others."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.domain.operations.access import key_hash
from harness.domain.routing.table import KeyGrant, Route, Snapshot
from router.snapshot import file as snapshot_file
from tests.support.router.asgi_router import CHAT, Door, code
from tests.support.router.live_router import KEY, SECRET, snapshot

pytestmark = pytest.mark.req("G3")

ASKED = json.dumps({"model": "support", "messages": [{"role": "user", "content": "hi"}]})
KEYS = {"default": KEY, "payments": "sk-sg-payments", "search": "sk-sg-search"}


def shared() -> Snapshot:
    """Each project has a route `support`, and one of its own with a task."""
    whole = snapshot("http://127.0.0.1:1/v1")
    mould = whole.table.routes["other"]

    def tasked(name: str, task: str) -> Route:
        return replace(mould, name=name, settings=replace(mould.settings, task=task))

    routes = {
        "support": replace(mould, name="support"),
        "payments::support": replace(mould, name="payments::support"),
        "search::support": replace(mould, name="search::support"),
        "payments::bills": tasked("payments::bills", "summary"),
        "search::pages": tasked("search::pages", "summary"),
        "own": tasked("own", "titles"),
    }
    keys = tuple(
        KeyGrant(project, key_hash(text, SECRET), project=project)
        for project, text in KEYS.items()
    )
    return replace(whole, table=replace(whole.table, routes=routes), keys=keys)


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path, first=shared())


async def ask(door: Door, project: str, model: str, *more: tuple[bytes, bytes]) -> str:
    """The route that answers, or the code of the error."""
    body = json.dumps({**json.loads(ASKED), "model": model}).encode()
    auth = (b"authorization", f"Bearer {KEYS[project]}".encode())
    status, headers, answer = await door.call(CHAT, body, headers=(auth, *more))
    if status == 200:
        return headers[b"x-swapgate-route"].decode()
    return f"{status} {code(answer)}"


@pytest.mark.parametrize(
    ("project", "model", "answer"),
    [
        ("default", "support", "support"),
        ("payments", "support", "payments::support"),
        ("search", "support", "search::support"),
        ("payments", "payments::support", "payments::support"),
        ("payments", "bills", "payments::bills"),
        ("payments", "own", "404 model_not_found"),
        ("payments", "search::support", "404 model_not_found"),
        ("payments", "pages", "404 model_not_found"),
        ("default", "payments::support", "404 model_not_found"),
        ("default", "bills", "404 model_not_found"),
    ],
)
async def test_a_model_is_looked_up_in_the_projects_routes_alone(
    door: Door, project: str, model: str, answer: str
) -> None:
    assert await ask(door, project, model) == answer


@pytest.mark.parametrize(
    ("project", "task", "answer"),
    [
        ("payments", b"summary", "payments::bills"),
        ("search", b"summary", "search::pages"),
        ("default", b"titles", "own"),
        # As a task that nobody has: the model decides.
        ("default", b"summary", "support"),
        ("payments", b"titles", "payments::support"),
    ],
)
async def test_a_task_is_looked_up_in_the_projects_routes_alone(
    door: Door, project: str, task: bytes, answer: str
) -> None:
    assert await ask(door, project, "support", (b"x-swapgate-task", task)) == answer


async def test_a_route_of_others_is_refused_in_the_words_for_one_that_is_not_there(
    door: Door,
) -> None:
    auth = (b"authorization", f"Bearer {KEYS['payments']}".encode())
    told = set()
    for model in ("search::pages", "search::pagez"):
        body = json.dumps({**json.loads(ASKED), "model": model}).encode()
        status, _, answer = await door.call(CHAT, body, headers=(auth,))
        told.add((status, answer.replace(model.encode(), b"")))

    assert len(told) == 1


@pytest.mark.parametrize(
    ("project", "names"),
    [
        ("default", ["own", "support"]),
        ("payments", ["bills", "support"]),
        ("search", ["pages", "support"]),
    ],
)
async def test_models_are_listed_by_the_names_that_the_project_calls_them(
    door: Door, project: str, names: list[str]
) -> None:
    auth = (b"authorization", f"Bearer {KEYS[project]}".encode())

    async def get(path: str) -> tuple[int, bytes]:
        status, _, body = await door.call(path, method="GET", headers=(auth,))
        return status, body

    _, listed = await get("/v1/models")
    assert [model["id"] for model in json.loads(listed)["data"]] == names
    for name in names:
        assert (await get(f"/v1/models/{name}"))[0] == 200
    for foreign in {"own", "bills", "pages", "other::support"} - set(names):
        assert (await get(f"/v1/models/{foreign}"))[0] == 404


async def test_metrics_of_all_routes_are_opened_by_no_projects_key(door: Door) -> None:
    def auth(project: str) -> tuple[tuple[bytes, bytes], ...]:
        return ((b"authorization", f"Bearer {KEYS[project]}".encode()),)

    assert (await door.call("/metrics", method="GET", headers=auth("default")))[0] == 200
    status, _, body = await door.call("/metrics", method="GET", headers=auth("payments"))
    assert (status, code(body)) == (403, "metrics_not_allowed")


def test_a_router_that_starts_from_its_disk_knows_whose_a_key_is() -> None:
    kept = shared()
    stored = snapshot_file.snapshot_to_json(kept)

    assert snapshot_file.snapshot_from_json(stored).keys == kept.keys
