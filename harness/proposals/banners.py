"""Banners report states in force that everybody should know."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.frame.errors import SignatureInvalid
from harness.frame.formatting import format_date_time
from harness.proposals import break_glass
from harness.providers.force import KillSwitch, SwitchSource
from harness.routes import freezes, kill_switch
from harness.routing.context import Context
from harness.routing.freeze import STILL_WORKS


@dataclass(frozen=True, slots=True)
class Banner:
    heading: str
    text: str
    docs_page: str = ""
    serious: bool = True

    def __str__(self) -> str:
        return f"{self.heading} {self.text}"


OBSERVE_ONLY = Banner(
    "Observe only.",
    "No canary opens, continues or is promoted: `control.observe_only` is set in the "
    "configuration. Verdicts, records and shadows continue; abort, rollback and kill switch "
    "work.",
    docs_page="how-to/observe",
    serious=False,
)


def list_switch_banners(ctx: Context, standing: Iterable[KillSwitch]) -> Sequence[Banner]:
    return [
        _describe_switch(switch) for switch in (*standing, *kill_switch.list_live_switches(ctx))
    ]


def list_break_glass_banners(ctx: Context) -> Sequence[Banner]:
    page = "how-to/break-glass"
    try:
        found = break_glass.list_notices(ctx)
    except SignatureInvalid as error:
        return [
            Banner("Swapgate cannot tell which routes serve without proof.", str(error), page)
        ]
    return [Banner(heading, text, page) for heading, text in found]


def list_freeze_banners(ctx: Context, route: str | None = None) -> Sequence[Banner]:
    page = "how-to/freezes"
    try:
        found = freezes.list_freeze_notices(ctx, route)
    except SignatureInvalid as error:
        text = f"The stored freezes cannot be trusted: {error}. {STILL_WORKS}"
        return [Banner("✕ Every route counts as frozen.", text, page)]
    return [Banner(hold.heading, hold.text, page, serious=False) for hold in found]


def list_observe_banners(ctx: Context) -> Sequence[Banner]:
    return [OBSERVE_ONLY] if ctx.observe_only else []


def _describe_switch(switch: KillSwitch) -> Banner:
    scope = "all routes" if switch.route is None else f"route {switch.route}"
    heading = f"✕ Kill switch: {switch.force.text} for {scope}."
    if switch.source in (SwitchSource.ENVIRONMENT, SwitchSource.CONFIG):
        end = "It ends when the router restarts without it."
    else:
        at = switch.expires_at
        until = f" or at {format_date_time(at)}" if at else ""
        end = f"It ends with `swapgate switch lift {switch.id} --reason …`{until}."
    return Banner(heading, f"{switch.actor}: {switch.reason}. {end}")
