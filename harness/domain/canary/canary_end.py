"""The three ways in which a canary ends without its candidate serving the route. Command line,
dashboard, reports, alerts and the reasons in the audit log take their words from here.
"""

from enum import StrEnum


class CanaryEnd(StrEnum):
    """Names an end, as a list of routes or proposals does."""

    ABORTED = "aborted"  # a person ended it before its promotion
    TAKEN_BACK = "promotion taken back"  # a person brought the former model back
    ROLLED_BACK = "rolled back"  # what was measured ended it, or a change of what it rests on

    @property
    def predicate(self) -> str:
        """Says it after the candidate's name: `was aborted`."""
        return f"had its {self}" if self is CanaryEnd.TAKEN_BACK else f"was {self}"

    @property
    def clause(self) -> str:
        """Says it after the verdict: `its canary was aborted`."""
        return f"its {self.describe('')}"

    def describe(self, route: str) -> str:
        """Says it of a route: `canary of chat was aborted`. route: empty for none."""
        of_route = f" of {route}" if route else ""
        if self is CanaryEnd.TAKEN_BACK:
            return f"promotion{of_route} was taken back"
        return f"canary{of_route} was {self}"


def describe_abort(name: str, reason: str, *, baking: bool) -> str:
    """Writes the reason of an end that a person brought about. `find_end` reads it."""
    return f"{CanaryEnd.TAKEN_BACK if baking else 'abort'} by {name}: {reason}"


def describe_who(ended_because: str) -> str:
    """Strips the word that stands beside it already: `by ben: the customer asked`."""
    return ended_because.removeprefix("abort ").removeprefix(f"{CanaryEnd.TAKEN_BACK} ")


def find_end(ended_because: str) -> CanaryEnd:
    """Tells by the stored reason of an end which one it was."""
    if ended_because.startswith("abort by "):
        return CanaryEnd.ABORTED
    if ended_because.startswith(f"{CanaryEnd.TAKEN_BACK} by "):
        return CanaryEnd.TAKEN_BACK
    return CanaryEnd.ROLLED_BACK
