"""The router's table of what a conversation carries to each kind of provider, as the reference
shows it.
"""

from collections.abc import Iterator

from harness.domain.providers.kinds import PROVIDER_KINDS, SERVED_KINDS
from router.conversation.intake import FOREIGN, INTAKES, OPENAI_ALONE, TAKES_ALL, HistoryIntake

HEADS = ("kind", "ids of tool calls", "names of tools", "reasoning", "left out")
_ANY = "any"


def history_rows() -> Iterator[tuple[str, ...]]:
    """Yields a row for each set of kinds that take the same of a history."""
    by_intake: dict[HistoryIntake, list[str]] = {}
    for name in PROVIDER_KINDS:
        if name in SERVED_KINDS:
            by_intake.setdefault(INTAKES.get(name, TAKES_ALL), []).append(name)
    for intake, kinds in by_intake.items():
        yield (
            ", ".join(f"`{name}`" for name in kinds),
            _ids(intake),
            f"`{intake.tool_names.pattern}`" if intake.tool_names else _ANY,
            _reasoning(intake),
            _refused(intake),
        )


def _ids(intake: HistoryIntake) -> str:
    if intake.call_ids is None:
        return _ANY
    pattern = intake.call_ids.pattern.pattern.removeprefix("(?s)")
    return f"`{pattern}`, none twice"


def _reasoning(intake: HistoryIntake) -> str:
    if intake.demands_reasoning:
        return "its own, and an empty one in each answer that called a tool"
    return "its own" if intake.returns_reasoning else "none"


def _refused(intake: HistoryIntake) -> str:
    named = dict.fromkeys(intake.refused)
    said = []
    for group, words in (
        (FOREIGN, "marks of other providers¹"),
        (OPENAI_ALONE, "OpenAI's own²"),
    ):
        if set(group) <= named.keys():
            said.append(words)
            named = {name: None for name in named if name not in group}
    return ", ".join([*said, *(f"`{name}`" for name in named)])
