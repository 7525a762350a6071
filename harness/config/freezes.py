"""The file's `freezes` section: times of the week in which routes are frozen."""

from pydantic import BaseModel, ConfigDict, Field

from harness.domain.routing.freeze import FreezeWindow, build_window


class FreezeEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    starts: str = Field(alias="from", description="day and time when it begins: `Fri 16:00`")
    ends: str = Field(alias="until", description="day and time when it ends: `Mon 08:00`")
    time_zone: str = "UTC"  # whose clock that is: `Europe/Berlin`; summer time is kept
    reason: str = Field(description="why; shown to everybody who waits for it")
    routes: list[str] = Field([], description="which routes; empty for all")


def freeze_window(entry: FreezeEntry) -> FreezeWindow:
    """Builds the window of an entry. Raises InputError for what makes no sense."""
    return build_window(entry.starts, entry.ends, entry.time_zone, entry.reason, entry.routes)
