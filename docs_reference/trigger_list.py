"""Lists the database triggers that refuse rows, for a reviewer: docs/reference/triggers.md."""

from collections.abc import Iterator
from typing import Final

from docs_reference.registries import code
from harness.app.store.guards import BY_SUBJECT, KEPT, NEVER_EMPTIED, RefusingTrigger

_STATEMENTS: Final = {"INSERT": "INSERT INTO", "UPDATE": "UPDATE", "DELETE": "DELETE FROM"}


def trigger_parts() -> dict[str, str]:
    """Returns the generated parts of the page by name."""
    return {
        "triggers": "\n".join(_write_sections()).rstrip(),
        "never emptied": ", ".join(map(code, NEVER_EMPTIED)),
        "kept": ", ".join(map(code, KEPT)),
    }


def _write_sections() -> Iterator[str]:
    for subject, triggers in BY_SUBJECT.items():
        yield from (f"## {subject}", "")
        for trigger in triggers:
            yield from _write_section(trigger)


def _write_section(trigger: RefusingTrigger) -> Iterator[str]:
    yield from (f"### `{trigger.name}`", "")
    statement = f"{_STATEMENTS[trigger.event]} {trigger.table}"
    refused_rows = f"{trigger.refuses[0].lower()}{trigger.refuses[1:]}"
    yield from (f"On `{statement}`, the database refuses {refused_rows} For example:", "")
    yield from ("```sql", trigger.statement, "```", "")
    yield from ("Messages:", "")
    yield from (f"- `{message}`" for message in trigger.messages)
    yield ""
