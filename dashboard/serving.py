"""Tells on every page about a route which model answers its callers now, and warns if its own
model does not.

Functions return HTML.
"""

from dashboard import markup
from dashboard.labels import Tone
from dashboard.markup import escape
from harness.operations.route_status import RouteState, RouteStatus


def describe_serving(status: RouteStatus) -> tuple[str, str]:
    """Returns the name of the model that answers now as HTML, and plain words if it is not the
    incumbent.
    """
    incumbent = status.incumbent.name
    if not status.serves:
        return "no model answers", f"the incumbent is {incumbent}"
    if status.serves != incumbent:
        cause = ", by a kill switch" if status.outage is None else ""
        return escape(status.serves), f"in place of {incumbent}{cause}"
    return escape(incumbent), ""


def serving_line(status: RouteStatus | None) -> str:
    """Renders the model that answers now for the line below a page's title.

    Args:
        status: None for a deleted route.
    """
    if status is None:
        return "deleted since"
    model, words = describe_serving(status)
    predicate = " serves now" if status.serves else ""
    return f"<b>{model}</b>{predicate} {escape(words)}".rstrip()


def outage_banner(status: RouteStatus | None) -> str:
    """Renders a warning if the route's own model does not answer; empty if it does."""
    if status is None or status.outage is None:
        return ""
    is_down = status.state is RouteState.DOWN
    return markup.banner(
        f"{'✕' if is_down else '▲'} {status.route.name}: {status.state_text}.",
        f"{status.reason} {next_step(status)}.",
        tone=Tone.WORSE if is_down else Tone.UNDECIDED,
        page="/providers",
    )


def next_step(status: RouteStatus) -> str:
    """Names the step of a person in an outage, in plain words."""
    return f"Check the provider of {status.incumbent.name}"
