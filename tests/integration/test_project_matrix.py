"""Every endpoint of the management API, asked by each role of a project about its own things
and about another's: what others have is answered as what nobody has, and stays as it is.
"""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from harness.api.app import ROUTERS
from harness.api.frame.endpoint import PROJECT_SCOPES
from harness.control.operations import keys
from harness.control.operations.project_scope import installation_alone, own_list, shared
from harness.domain.errors import InputError, NotAllowed, NotFound
from harness.domain.operations.access import SYSTEM, Actor, Role
from harness.domain.operations.projects import DEFAULT_PROJECT
from tests.integration.test_api_access import READS, ROLES, WRITES
from tests.support.control.control_plane import SECRET
from tests.support.site.management_api import error_of
from tests.support.site.two_projects import LAUNCH, OURS, THEIRS, VERBS, Site, two_projects

pytestmark = pytest.mark.req("G3")

NAMED = re.compile(r"\{(\w+)(?::path)?\}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return two_projects(tmp_path_factory.mktemp("world"))


def scope_of(verb: str) -> Any:
    """What the registry says of an endpoint of the tables."""
    method, path = verb.split()
    path = path.partition("?")[0]
    for (known, template), scope in PROJECT_SCOPES.items():
        pattern = NAMED.sub("[^/]+", template.replace("{model:path}", "sim/base"))
        fixed = template in (path, path.replace("/chat", "/{route}"))
        if known == method and (fixed or re.fullmatch(pattern, path)):
            if not fixed and (method, path) in PROJECT_SCOPES:
                continue
            return scope
    raise AssertionError(f"{verb} is not registered")


OWN = [v for v in VERBS if scope_of(v) not in (installation_alone, own_list, shared)]
READ_BY_ALL = {f"GET {path}" for path in READS}
SUMS = "GET /spending"  # its rows are no list: test_project_reports.py
LISTS = [v for v in VERBS if scope_of(v) is own_list and v != SUMS]
CLOSED = [v for v in VERBS if scope_of(v) is installation_alone]


def test_every_endpoint_says_whose_it_is() -> None:
    """No route of the API stands beside the registry."""
    served = {
        (method, route.path)  # type: ignore[attr-defined]  # of FastAPI's
        for router in ROUTERS.values()
        for route in router.routes
        for method in route.methods  # type: ignore[attr-defined]
    }
    assert served == set(PROJECT_SCOPES)
    assert len(OWN) > 30
    assert len(LISTS) > 8


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("verb", OWN)
def test_what_another_project_has_is_answered_as_what_nobody_has(
    verb: str, role: str, site: Site
) -> None:
    theirs, before = site.names[THEIRS], site.last_event()
    nobodys = {name: f"{id_[:-1]}~" for name, id_ in theirs.items()}
    answers = []
    for names in (theirs, nobodys):
        answer = site.send(verb, f"{OURS}/{role}", names)
        assert answer.status_code in (404, 400, 403, 422), answer.text
        if "{" in verb or "/chat" in verb:
            assert answer.status_code == 404, answer.text
        text = answer.text
        for id_ in names.values():
            text = text.replace(id_, "ID")
        answers.append((answer.status_code, re.sub(r'"request_id":"[^"]*"', "", text)))

    assert answers[0] == answers[1]
    assert site.last_event() == before


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("verb", CLOSED)
def test_what_is_the_whole_installations_opens_to_no_projects_key(
    verb: str, role: str, site: Site
) -> None:
    before = site.last_event()
    for project in (OURS, THEIRS):
        answer = site.send(verb, f"{OURS}/{role}", site.names[project])
        assert error_of(answer, 403)["type"] == "NotAllowed"
    assert site.last_event() == before


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("verb", LISTS)
def test_a_list_has_the_projects_own_alone(verb: str, role: str, site: Site) -> None:
    answer = site.send(verb, f"{OURS}/{role}", site.names[OURS])
    everything = site.send(verb, "admin", site.names[OURS])

    assert answer.status_code == 200
    assert THEIRS not in answer.text
    assert not [i for i in ids(site.names[THEIRS]) if i in answer.text]
    if THEIRS in everything.text:
        assert OURS in answer.text or '"total":0' in answer.text
        assert answer.json()["total"] < everything.json()["total"]


def ids(names: dict[str, str]) -> Iterator[str]:
    known = ("proposal", "verdict", "key", "switch", "freeze", "glass", "capture")
    return (names[name] for name in known)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("verb", [v for v in OWN if v in READ_BY_ALL])
def test_a_project_reads_its_own(verb: str, role: str, site: Site) -> None:
    answer = site.send(verb, f"{OURS}/{role}", site.names[OURS])

    # Its canary has not begun: it is frozen.
    nothing_yet = answer.status_code == 404 and "canary yet" in answer.text
    assert answer.status_code == 200 or nothing_yet, answer.text
    assert THEIRS not in answer.text


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("verb", [v for v in OWN if v in WRITES])
def test_a_project_changes_its_own_by_role(verb: str, role: str, site: Site) -> None:
    answer = site.send(verb, f"{OURS}/{role}", site.names[OURS])

    if ROLES.index(role) < ROLES.index(WRITES[verb][1]):
        assert error_of(answer, 403)["type"] == "NotAllowed"
    else:
        assert answer.status_code in (200, 201, 204, 404, 409), answer.text
    assert THEIRS not in answer.text


def test_a_captured_request_of_ones_own_opens_no_other_projects_route(site: Site) -> None:
    own, theirs = site.names[OURS], site.names[THEIRS]
    before = site.last_event()
    for capture, route in (
        (own["capture"], theirs["route"]),
        (theirs["capture"], own["route"]),
    ):
        params = {"capture": capture, "route": route}
        answer = site.door.send("DELETE", "/captures", role=f"{OURS}/admin", params=params)
        assert answer.status_code == 404, answer.text
    assert site.last_event() == before


def test_a_cursor_of_another_project_is_none(site: Site) -> None:
    for path, name in (("/proposals", "proposal"), ("/freezes", "freeze"), ("/keys", "key")):
        theirs = site.names[THEIRS][name]
        told = set()
        for cursor in (theirs, f"{theirs}~"):
            params = {"after": cursor}
            answer = site.door.send("GET", path, role=f"{OURS}/viewer", params=params)
            told.add(error_of(answer, 404)["message"].replace(cursor, ""))
        assert len(told) == 1


def test_an_idempotency_key_is_of_one_project(site: Site) -> None:
    ctx = site.door.app.state.installation.context
    answers = []
    for project in (OURS, THEIRS):
        _, site.door.keys["twice"] = keys.create_key(
            ctx,
            SYSTEM,
            f"second of {project}",
            secret=SECRET,
            role=Role.APPROVER,
            principal=f"{OURS} approver",
            project=project,
        )
        answers.append(
            site.door.send(
                "POST",
                "/freezes",
                role="twice",
                headers={"Idempotency-Key": "once"},
                json={**LAUNCH, "route": site.names[project]["route"]},
            )
        )
    first, second = (answer.json() for answer in answers)
    assert (first["route"], second["route"]) == (f"{OURS}::chat", f"{THEIRS}::chat")


def test_an_admin_of_a_project_makes_its_client_keys_and_no_others(site: Site) -> None:
    def make(**body: object) -> httpx.Response:
        return site.door.send("POST", "/keys", role=f"{OURS}/admin", json=body)

    made = make(name="till").json()["key"]
    assert (made["project"], made["role"]) == (OURS, None)
    # A name is taken within a project alone.
    assert make(name="till").status_code == 409
    error_of(make(name="x", project=THEIRS), 403)
    error_of(make(name="x", project=DEFAULT_PROJECT), 403)
    error_of(make(name="x", role="viewer"), 403)
    error_of(make(name="x", routes=[f"{THEIRS}::chat"]), 422)


def test_what_is_about_all_routes_takes_the_installations_key(site: Site) -> None:
    role = f"{OURS}/admin"
    error_of(site.door.send("POST", "/freezes", role=role, json=LAUNCH), 403)
    force = {"force": "provider:sim", "reason": "a drill"}
    error_of(site.door.send("POST", "/switches", role=role, json=force), 403)


def test_a_projects_suite_is_its_own_and_one_of_no_project_is_shared(site: Site) -> None:
    role = f"{OURS}/admin"
    listed = site.door.send("GET", "/suites", role=role).json()["items"]
    assert {suite["name"] for suite in listed} == {"colours", f"{OURS}::colours"}
    shared = {"suite": "colours", "target": "sim/base"}
    error_of(site.door.send("POST", "/evals", role=role, json=shared), 404)
    told = set()
    for other in (f"{THEIRS}::colours", f"{THEIRS}::sounds"):
        new = {"name": f"{OURS}::art", "incumbent": "sim/base", "suites": [{"suite": other}]}
        answer = site.door.send("POST", "/routes", role=role, json=new)
        told.add(error_of(answer, 404)["message"].replace(other, ""))
    assert len(told) == 1
    new["suites"] = [{"suite": f"{OURS}::colors"}]
    said = error_of(site.door.send("POST", "/routes", role=role, json=new), 404)["message"]
    assert f"{OURS}::colours" in said
    assert THEIRS not in said
    # Nor does a route of no project name a project's.
    new["name"] = "art"
    error_of(site.door.send("POST", "/routes", json=new), 404)


def test_no_override_leads_to_another_project(site: Site) -> None:
    told = set()
    for other in (f"{THEIRS}::chat", f"{THEIRS}::cart"):
        answer = site.door.send(
            "PATCH",
            f"/routes/{OURS}::chat",
            role=f"{OURS}/admin",
            json={"overrides": {"vision": other}},
        )
        assert answer.status_code in (400, 422)
        told.add(error_of(answer, answer.status_code)["message"].replace(other, ""))
    assert len(told) == 1


def test_other_doors_take_no_projects_key(site: Site) -> None:
    """Agents and what is beside the management API work on all projects."""
    ctx, text = site.door.app.state.installation.context, site.door.keys[f"{OURS}/admin"]
    with pytest.raises(
        NotAllowed, match="which dashboard, REST API, command line and MCP take"
    ):
        keys.authenticate(ctx.store, text, secret=SECRET)
    actor = keys.authenticate(ctx.store, text, secret=SECRET, in_project=True)
    assert actor == Actor(actor.name, Role.ADMIN, actor.principal, actor.key, OURS)
    assert keys.still(ctx.store, actor) == actor
    _, client = keys.create_key(ctx, SYSTEM, "agent", secret=SECRET, project=OURS)
    with pytest.raises(NotAllowed, match="agents take no project"):
        keys.authenticate_data_key(ctx.store, client, secret=SECRET)
    error_of(site.door.send("GET", "//metrics", role=f"{OURS}/admin"), 403)


def test_a_project_that_the_file_does_not_name_gets_nothing(site: Site) -> None:
    body = {"name": "paymets::chat", "incumbent": "sim/base"}
    assert (
        "did you mean 'payments'"
        in error_of(site.door.send("POST", "/routes", json=body), 404)["message"]
    )
    ctx = site.door.app.state.installation.context
    with pytest.raises(NotFound):
        keys.create_key(ctx, SYSTEM, "x", secret=SECRET, project="paymets")
    with pytest.raises(InputError):
        keys.create_key(
            ctx, SYSTEM, "x", secret=SECRET, routes=[f"{THEIRS}::chat"], project=OURS
        )
