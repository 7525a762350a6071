"""The file's `projects` section; `project_faults` names what is wrong with it, and with names
of routes and suites that stand in a project.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

from pydantic import BaseModel, ConfigDict, Field

from harness.config.source_locations import KeyPath
from harness.domain.errors import InputError, NotFound
from harness.domain.operations.projects import (
    check_owned_name,
    check_project_name,
    project_of,
    require_project,
)


class ProjectEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    description: str = Field("", description="what people read")
    clients_budget_month_usd: float | None = Field(
        None,
        description="what its client keys may spend together in a month (UTC), in US dollars",
    )


def project_budgets(projects: Mapping[str, ProjectEntry]) -> Mapping[str, float]:
    """Reads the budgets of those that have one, by project."""
    return {
        name: entry.clients_budget_month_usd
        for name, entry in projects.items()
        if entry.clients_budget_month_usd is not None
    }


def project_faults(
    projects: Collection[str], routes: Iterable[str], suites: Iterable[str]
) -> Iterator[tuple[KeyPath, str]]:
    """Yields the place and the fault."""
    for name in projects:
        try:
            check_project_name(name)
        except InputError as error:
            yield ("projects", name), str(error)
    owned = (*(("routes", name) for name in routes), *(("suites", name) for name in suites))
    for section, name in owned:
        try:
            check_owned_name(name)
            require_project(project_of(name), projects)
        except (InputError, NotFound) as error:
            yield (section, name), str(error)
