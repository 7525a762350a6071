"""Lists every place that holds what people and models wrote, or that tells one user from
another. docs/reference/privacy.md is written from it, and a test holds it against the schema: a
new column of text belongs here, or to `tests/unit/test_stored_content.py`.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ContentColumn:
    """A column of the database with content, or with what names a user."""

    table: str
    column: str
    holds: str
    ends: str  # when it is deleted by itself
    deletion: str  # what `swapgate user delete` does with it


@dataclass(frozen=True, slots=True)
class ContentFile:
    """A file that Swapgate writes, with content or near it."""

    place: str
    holds: str
    ends: str
    deletion: str


_SESSION_END: Final = "`agents.keep_days` after its last message"
_WITH_SESSION: Final = "deleted with the user's sessions"
_TEXTS_END: Final = "blanked after `texts_keep_days` of its suite, else kept with its scores"
_WITH_SCORES: Final = "kept with its scores"
_NO_USER: Final = "no user is known"

COLUMNS: Final = (
    ContentColumn(
        "captured",
        "content",
        "a redacted request with its answer",
        "`capture_keep_days` of its route",
        "deleted",
    ),
    *(
        ContentColumn(table, column, holds, _SESSION_END, _WITH_SESSION)
        for table, column, holds in (
            ("agent_message", "content", "a message of a session"),
            ("agent_message", "tool_calls", "the tools that it calls, with their arguments"),
            ("agent_message", "extra", "the provider's own fields, such as its reasoning"),
            ("agent_message", "error", "why there is no whole answer"),
            ("agent_message", "kept", "the answer that an idempotency key gets again"),
            ("agent_session", "metadata", "what the client noted of a session"),
        )
    ),
    *(
        ContentColumn(
            "agent_switch",
            column,
            holds,
            f"blanked {_SESSION_END}",
            "blanked",
        )
        for column, holds in (
            ("model_requested", "the model as the agent named it"),
            ("reason", "the agent's words for another model"),
            ("facts", "both models' figures, and the sub-tasks in the agent's words"),
        )
    ),
    *(
        ContentColumn(
            "agent",
            column,
            holds,
            "when its last session has gone, once it was deleted",
            "kept: an agent is the client's, not one user's",
        )
        for column, holds in (
            ("description", "what an agent is for"),
            ("instructions", "its system message"),
            ("tools", "its tools, with the client's descriptions"),
        )
    ),
    *(
        ContentColumn("sample", column, holds, ends, _NO_USER)
        for column, holds, ends in (
            ("prompt", "a question of an eval suite", _TEXTS_END),
            ("answer", "a model's answer to it", _TEXTS_END),
            ("error_text", "why there is no answer", _WITH_SCORES),
        )
    ),
    ContentColumn(
        "eval_run",
        "message",
        "how a run ended, in words of a provider or a judge",
        "kept with the run",
        _NO_USER,
    ),
    ContentColumn(
        "drift_check",
        "message",
        "how a check ended, in such words",
        "kept with the check",
        _NO_USER,
    ),
    ContentColumn(
        "alert",
        "text",
        "of an open circuit, the provider's sentence, redacted and without long quotations",
        "`alerts.keep_days` after it is over",
        "no user is known",
    ),
)
# What names a user, or stands for one.
USERS: Final = (
    ContentColumn(
        "agent_session",
        "user_id",
        "the user's id as the client sent it; sessions are found by it",
        _SESSION_END,
        _WITH_SESSION,
    ),
    ContentColumn(
        "captured",
        "user_hash",
        "a keyed hash: whose request it was",
        "with the request",
        "deleted with the request",
    ),
    ContentColumn(
        "failover",
        "user_hash",
        "a keyed hash: whose request left a target",
        "`control.failovers_keep_days`",
        "blanked",
    ),
    ContentColumn(
        "failover",
        "sentence",
        "what a provider said of its refusal, redacted, without long quotations, at most 300 "
        "characters",
        "`control.failovers_keep_days`",
        "blanked",
    ),
    ContentColumn(
        "seen_keys",
        "entries",
        "64 bits of a keyed hash of each caller that a canary has counted",
        "when the canary has ended",
        "kept until then: a caller would be counted twice",
    ),
)
FILES: Final = (
    ContentFile(
        "SQLite's file, with `-wal`",
        "all columns above",
        "deleted content is overwritten with zeros; the log is emptied after a deletion",
        "as its columns",
    ),
    ContentFile(
        "`swapgate-eval-*` in the temporary folder",
        "Inspect's log of a run that goes on",
        "with the run; those of killed runs when the next one starts",
        _NO_USER,
    ),
    ContentFile(
        "`snapshot`, `spool` and `rates` in `home`",
        "routes, counts and limits: no content",
        "replaced as they change",
        "nothing to delete",
    ),
    ContentFile(
        "a backup that you made",
        "all tables",
        "yours to delete",
        "not reached",
    ),
    ContentFile(
        "exports of captures, suites made of them, reports, data files",
        "what you asked for, to be read by people and tools",
        "yours to delete",
        "not reached",
    ),
    ContentFile(
        "traces with `router.tracing.content: true`",
        "requests and answers, at your collector",
        "by the collector",
        "not reached",
    ),
)
