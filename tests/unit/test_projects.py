"""Names of projects, and of what they own."""

from pathlib import Path

import pytest

from harness import config, package_data
from harness.domain.errors import (
    ConfigError,
    InputError,
    NotAllowed,
    NotFound,
    SwapgateError,
)
from harness.domain.operations.projects import (
    check_project_name,
    name_in_project,
    project_of,
    require_project,
)
from harness.domain.routing.overrides import RequestKind, override_errors
from harness.domain.routing.route_changes import check_route_name

pytestmark = pytest.mark.req("G3")


@pytest.mark.parametrize(
    ("name", "project", "own"),
    [
        ("chat", "default", "chat"),
        ("payments::chat", "payments", "chat"),
        # As people name routes after models.
        ("llama3:8b", "default", "llama3:8b"),
        ("payments::llama3:8b", "payments", "llama3:8b"),
    ],
)
def test_the_name_says_whose_a_route_is(name: str, project: str, own: str) -> None:
    check_route_name(name)
    assert (project_of(name), name_in_project(name)) == (project, own)


@pytest.mark.parametrize(
    "name", ["::chat", "payments::", "a::b::c", "default::chat", "Payments::chat", "-a::chat"]
)
def test_a_name_that_leaves_the_project_open_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        check_route_name(name)


@pytest.mark.parametrize("name", ["", "default", "a" * 64, "a b", "ä", "a:b"])
def test_a_project_has_a_plain_name(name: str) -> None:
    with pytest.raises(InputError):
        check_project_name(name)


def test_a_project_that_the_file_does_not_name_is_refused_with_the_nearest() -> None:
    require_project("default", ())
    with pytest.raises(NotFound, match="did you mean 'payments'"):
        require_project("paymets", {"payments"})


def test_an_override_stays_in_its_project_and_tells_nothing_of_others() -> None:
    def fault(other: str, *existing: str) -> SwapgateError:
        carried = dict.fromkeys(("payments::chat", *existing), "")
        [(_, error)] = override_errors(
            "payments::chat", {RequestKind.VISION: other}, carried, {}
        )
        return error

    there, not_there = fault("search::eyes", "search::eyes"), fault("search::eyes")

    assert isinstance(there, InputError)
    assert not isinstance(there, NotAllowed)
    assert str(there) == str(not_there)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("routes:\n  paymets::chat: {incumbent: sim/base}\nprojects: {payments: {}}\n", "2:"),
        ("suites:\n  paymets::faq: {path: f.jsonl}\nprojects: {payments: {}}\n", "2:"),
        ("projects: {Pay: {}}\n", "1: projects.Pay"),
        ("projects: {default: {}}\n", "leave it out"),
        ("projects: {pay: {clients_budget_month_usd: -1}}\n", "clients_budget_month_usd"),
    ],
)
def test_the_file_names_each_project_of_a_route(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "swapgate.yaml"
    file.write_text(text)

    with pytest.raises(ConfigError, match=fault):
        config.load_settings(file, {}, defaults=package_data.path("config/default.yaml"))
