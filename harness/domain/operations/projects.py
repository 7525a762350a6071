"""A project owns routes, suites and keys. `payments::chat` is the route `chat` of the project
`payments`; a name without a project is the default project's, whose management keys act for the
whole installation.

The name says whose a route or suite is, so that all that is kept by it (traffic, proof,
breakers, canaries; runs, samples, drift) is kept apart by project, and can be moved to no
other.
"""

import re
from collections.abc import Collection
from typing import Final

from harness.domain.errors import InputError, NotFound
from harness.domain.suggestions import did_you_mean

DEFAULT_PROJECT: Final = "default"
MARK: Final = "::"  # between a project and what it owns
# What stands before names in subjects of alerts and audit events.
_BEFORE_NAMES: Final = ("route ", "routes ", "suite ", "captures of ")
_SUITE: Final = "suite "
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def project_of(name: str) -> str:
    """The project that owns the route or suite of this name."""
    project, mark, _ = name.partition(MARK)
    return project if mark else DEFAULT_PROJECT


def find_named_project(subject: str) -> str | None:
    """Finds the project of the routes or suites that an alert or an audit event is about, by
    their names; the default one where they are several projects'. None where the subject says
    what it is by an id.

    >>> find_named_project("route payments::chat, suite courtesy")
    'payments'
    """
    before = next((words for words in _BEFORE_NAMES if subject.startswith(words)), "")
    if not before and " " in subject:
        return None
    names = subject.removeprefix(before).split(", ")
    # A shared suite is measured for a project's route.
    owners = {project_of(name) for name in names if not name.startswith(_SUITE)}
    return owners.pop() if len(owners) == 1 else DEFAULT_PROJECT


def may_use_suite(project: str, suite: str) -> bool:
    """Whether a project's routes may name the suite: it is theirs, or shared by all."""
    return project_of(suite) in (DEFAULT_PROJECT, project)


def name_in_project(name: str) -> str:
    """The name of a route as its own project calls it."""
    _, mark, own = name.partition(MARK)
    return own if mark else name


def check_project_name(name: str) -> None:
    """Checks a project's name. Raises InputError for one that no project may have."""
    if name == DEFAULT_PROJECT:
        raise InputError(f"{name!r} is the project of all that names none: leave it out")
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is no project's name: it has 1 to 63 of a-z, 0-9 and '-', and neither "
            "begins nor ends with '-'"
        )


def check_owned_name(name: str) -> None:
    """Checks the project in the name of a route or suite. Raises InputError."""
    project, mark, own = name.partition(MARK)
    if not mark:
        return
    check_project_name(project)
    if not own.strip() or MARK in own:
        raise InputError(
            f"{name!r} is no name: a project and what it owns are written PROJECT{MARK}NAME"
        )


def require_project(name: str, projects: Collection[str]) -> None:
    """Requires that the configuration names the project. Raises NotFound."""
    if name != DEFAULT_PROJECT and name not in projects:
        hint = did_you_mean(name, projects)
        raise NotFound(
            f"there is no project {name!r}{hint}; the configuration names them below `projects`"
        )
