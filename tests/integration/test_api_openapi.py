import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from jsonschema import Draft202012Validator

from tests.support.control.control_plane import SmallInstallation
from tests.support.site.documented_commands import (
    DOCS,
    run_in_bash,
    shell_blocks,
)
from tests.support.site.management_api import Door, served


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Door:
    folder: Path = tmp_path_factory.mktemp("world")
    made = SmallInstallation(folder)
    made.set_up()
    return Door(made)


@pytest.fixture(scope="module")
def document(door: Door) -> dict[str, Any]:
    found: dict[str, Any] = door.get("/openapi.json")
    return found


def test_every_schema_in_it_is_a_json_schema(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    for schema in schemas_of(document):
        Draft202012Validator.check_schema(schema)


def schemas_of(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from document["components"]["schemas"].values()
    for node in nodes(document["paths"]):
        if "schema" in node:
            yield node["schema"]


def nodes(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


def test_no_description_is_cut_by_what_is_left_out_of_a_docstring(
    document: dict[str, Any],
) -> None:
    for node in nodes(document["paths"]):
        if "operationId" in node and "description" in node:
            assert node["description"].endswith("."), node["operationId"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for node in nodes(document):
        if isinstance(node.get("$ref"), str):
            found: Any = document
            for part in node["$ref"].removeprefix("#/").split("/"):
                found = found[part]


def test_every_operation_has_a_name_of_its_own_an_answer_and_an_error(
    document: dict[str, Any],
) -> None:
    operations = [verb for verbs in document["paths"].values() for verb in verbs.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        [status] = set(operation["responses"]) - {"default"}
        content = operation["responses"][status].get("content")
        assert status == "204" or content["application/json"]["schema"]
        error = operation["responses"]["default"]["content"]["application/json"]["schema"]
        assert error == {"$ref": "#/components/schemas/Error"}


def test_every_operation_needs_the_bearer_key(document: dict[str, Any]) -> None:
    assert document["security"] == [{"key": []}]
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert not [node for node in nodes(document["paths"]) if "security" in node]


def test_idempotency_keys_are_offered_where_money_is_spent(document: dict[str, Any]) -> None:
    offered = {
        path
        for path, verbs in document["paths"].items()
        for operation in verbs.values()
        for parameter in operation.get("parameters", ())
        if parameter["name"] == "Idempotency-Key"
    }
    assert offered == {"/api/v1/evals", "/api/v1/proposals"}


def test_an_answer_with_one_field_more_or_less_would_be_noticed(
    document: dict[str, Any],
) -> None:
    """The other tests hold every answer against this document: it must be strict."""
    root = {
        "$ref": "#/components/schemas/AuditCheck",
        "components": document["components"],
    }
    Draft202012Validator(root).validate({"whole": True, "first_break": None})
    for wrong in (
        {"whole": True},
        {
            "whole": True,
            "first_break": None,
            "more": 1,
        },
    ):
        with pytest.raises(jsonschema.ValidationError):
            Draft202012Validator(root).validate(wrong)


def test_no_page_loads_scripts_from_elsewhere(door: Door) -> None:
    for page in ("/docs", "/redoc", "//docs", "//redoc"):
        assert door.send("GET", page).status_code == 404


def test_defaults_of_a_new_route_are_documented_and_descriptions_name_no_inner_argument(
    door: Door, document: dict[str, Any]
) -> None:
    made = door.post("/routes", {"name": "bare", "incumbent": "sim/base"})["settings"]
    fields = document["components"]["schemas"]["RouteBody"]["properties"]
    documented = {n: field["default"] for n, field in fields.items() if "default" in field}
    assert documented["total_timeout_s"] == 120.0
    assert {
        **made,
        **documented,
        "fallbacks": [],
    } == {**made, "fallbacks": []}

    operations = [o for path in document["paths"].values() for o in path.values()]
    described = " ".join(o.get("description", "") for o in operations)
    for inner in (
        "expected_verdict",
        "expected_version",
        "StaleWrite",
        "None for",
    ):
        assert inner not in described


PAGE = (DOCS / "reference/api.md").read_text(encoding="utf-8")


@contextmanager
def turning(world: SmallInstallation) -> Iterator[None]:
    done = threading.Event()

    def run_turns() -> None:
        while not done.wait(0.1):
            world.run_once()

    loop = threading.Thread(target=run_turns)
    loop.start()
    try:
        yield
    finally:
        done.set()
        loop.join()


def test_every_command_works(careful: Door) -> None:
    commands = "".join(shell_blocks("reference/api.md"))
    assert all(line for line in commands.splitlines())
    with served(careful.app) as address, turning(careful.world):
        named = {"ROUTE": "chat", "CANDIDATE": "sim/better"}
        said = run_in_bash(
            commands,
            API=f"{address}/api/v1",
            KEY=careful.keys["admin"],
            APPROVER_KEY=careful.keys["approver"],
            **named,
        )

    assert said.rstrip().endswith('{"whole": true, "first_break": null}')
    [proposal] = careful.get("/proposals")["items"]
    assert (proposal["phase"], proposal["proposer"]) == (
        "rolled_back",
        "a proposer",
    )


def test_every_endpoint_is_in_the_table(door: Door) -> None:
    told = set(re.findall(r"/[a-z-]+(?:/[a-z{}-]+)*", PAGE))
    for path in door.document["paths"]:
        short = path.removeprefix("/api/v1")
        beside = re.sub(r"(resume|abort|advance|promote|finish)$", "pause", short)
        assert short in told or beside in told, path
