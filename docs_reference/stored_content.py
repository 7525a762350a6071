"""Lists every place that holds texts of people and models, or that identifies users.

docs/reference/privacy.md is generated from the list, and a test compares it with the schema. A
new column of text belongs here, or to `tests/unit/test_stored_content.py`.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ContentColumn:
    """A column of the database that holds content or identifies a user."""

    table: str
    column: str
    holds: str
    ends: str  # the time of its automatic deletion
    deletion: str  # the effect of `swapproof user delete`


@dataclass(frozen=True, slots=True)
class ContentFile:
    """A file that Swapproof writes. It has content, or stands beside content."""

    place: str
    holds: str
    ends: str
    deletion: str


_END_OF_SESSION: Final = "`agents.keep_days` after the session's last message"
_WITH_SESSION: Final = "deleted with the user's sessions"
_END_OF_TEXTS: Final = "blanked after `texts_keep_days` of its suite, else kept with its scores"
_WITH_SCORES: Final = "kept with its scores"
_NO_USER: Final = "no user is known"
_END_OF_EXPOSURES: Final = "`control.exposures_keep_days` after the canary's end"

COLUMNS: Final = (
    ContentColumn(
        "captured",
        "content",
        "a redacted request with its answer, and for a shadow's pair the candidate's",
        "`capture_keep_days` of its route",
        "deleted",
    ),
    ContentColumn(
        "kept_piece",
        "content",
        "an item of a request or answer of `/v1/responses`, unredacted, or a list of items",
        "`responses_state` of its route, after the last answer that uses it",
        "deleted",
    ),
    *(
        ContentColumn(table, column, holds, _END_OF_SESSION, _WITH_SESSION)
        for table, column, holds in (
            ("agent_message", "content", "a message of a session"),
            (
                "agent_message",
                "tool_calls",
                "the tools that it calls, with their arguments",
            ),
            (
                "agent_message",
                "extra",
                "the provider's own fields, such as its reasoning",
            ),
            (
                "agent_message",
                "error",
                "the reason why the answer is incomplete",
            ),
            (
                "agent_message",
                "kept",
                "the answer to repeat for an idempotency key",
            ),
            (
                "agent_session",
                "metadata",
                "the client's notes about a session",
            ),
        )
    ),
    *(
        ContentColumn(
            "agent_switch",
            column,
            holds,
            f"blanked {_END_OF_SESSION}",
            "blanked",
        )
        for column, holds in (
            ("model_requested", "the model name that the agent sent"),
            ("reason", "the agent's reason for another model"),
            (
                "facts",
                "both models' figures, and the sub-tasks in the agent's words",
            ),
        )
    ),
    *(
        ContentColumn(
            "agent",
            column,
            holds,
            "deleted with its last session, after the client deletes the agent",
            "kept, because an agent belongs to the client, not to a user",
        )
        for column, holds in (
            ("description", "an agent's purpose"),
            ("instructions", "its system message"),
            ("tools", "its tools, with the client's descriptions"),
        )
    ),
    *(
        ContentColumn("sample", column, holds, ends, _NO_USER)
        for column, holds, ends in (
            ("prompt", "a question of an eval suite", _END_OF_TEXTS),
            ("answer", "a model's answer to it", _END_OF_TEXTS),
            (
                "error_text",
                "the reason why there is no answer",
                _WITH_SCORES,
            ),
        )
    ),
    ContentColumn(
        "eval_run",
        "message",
        "the reason for a run's end, in words of a provider or judge",
        "kept with the run",
        _NO_USER,
    ),
    ContentColumn(
        "drift_check",
        "message",
        "the reason for a check's end, in words of a provider or judge",
        "kept with the check",
        _NO_USER,
    ),
    ContentColumn(
        "alert",
        "text",
        "for an open circuit, the provider's sentence, redacted and without long quotations",
        "`alerts.keep_days` after the alert's end",
        "no user is known",
    ),
    *(
        ContentColumn("exposure_event", column, holds, _END_OF_EXPOSURES, _NO_USER)
        for column, holds in (
            ("text_hash", "48 bits of a keyed hash of an answer's text in a canary"),
            ("question_hash", "48 bits of a keyed hash of the last user message"),
        )
    ),
)
# Columns that identify a user, by name or by hash.
USERS: Final = (
    ContentColumn(
        "agent_session",
        "user_id",
        "the user's id that the client sent, by which you find sessions",
        _END_OF_SESSION,
        _WITH_SESSION,
    ),
    ContentColumn(
        "captured",
        "user_hash",
        "a keyed hash of the user who sent the request",
        "with the request",
        "deleted with the request",
    ),
    ContentColumn(
        "captured",
        "caller",
        "a keyed hash of the user that the request names, for suites",
        "with the request",
        "deleted with the request",
    ),
    ContentColumn(
        "captured",
        "conversation",
        "a keyed hash of the request's conversation, for suites",
        "with the request",
        "deleted with the request",
    ),
    ContentColumn(
        "kept_piece",
        "user_hash",
        "a keyed hash of the user whose request or answer it is",
        "with the item",
        "deleted with the item",
    ),
    ContentColumn(
        "kept_piece",
        "caller",
        "a keyed hash of the API key and the user that may refer to it",
        "with the item",
        "deleted with the item",
    ),
    ContentColumn(
        "failover",
        "user_hash",
        "a keyed hash of the user whose request changed its target",
        "`control.failovers_keep_days`",
        "blanked",
    ),
    ContentColumn(
        "failover",
        "sentence",
        "a provider's reason for its refusal, redacted, without long quotations, at most 300 "
        "characters",
        "`control.failovers_keep_days`",
        "blanked",
    ),
    ContentColumn(
        "seen_keys",
        "entries",
        "44 bits of a keyed hash of each caller that a canary has counted",
        "when the canary has ended",
        "kept until then, so that no caller counts twice",
    ),
    ContentColumn(
        "canary_caller",
        "caller",
        "44 bits of a keyed hash of each caller that a canary's candidate served, and the days",
        "`control.traffic_keep_days`",
        "kept until then: Swapproof cannot tell whose hash it is",
    ),
    ContentColumn(
        "shadow_score",
        "caller",
        "96 bits of a hash of the caller's keyed hash, other ones for each series of shadows",
        "for ever, because the scores prove a shadow's verdict",
        "kept, so that no caller counts twice: Swapproof cannot tell whose hash it is",
    ),
    ContentColumn(
        "failed_turns",
        "entries",
        "44 bits of a keyed hash of each caller whose request failed in a canary, the time and "
        "the arm",
        "when the canary has ended",
        "kept until then, so that a failure at any router counts for its caller",
    ),
    ContentColumn(
        "exposure",
        "caller",
        "63 bits of a keyed hash of a caller in a canary, with the canary's own key",
        _END_OF_EXPOSURES,
        "kept until then: Swapproof cannot tell whose hash it is",
    ),
)
FILES: Final = (
    ContentFile(
        "SQLite's file, with `-wal`",
        "all columns above",
        "deletion overwrites content with zeros, and then empties the log",
        "as its columns",
    ),
    ContentFile(
        "`swapproof-eval-*` in the temporary folder",
        "Inspect's log of a current run",
        "with the run; logs of killed runs when the next run starts",
        _NO_USER,
    ),
    ContentFile(
        "`snapshot`, `spool` and `rates` in `home`",
        "routes, counts and limits, but no content",
        "replaced as they change",
        "nothing to delete",
    ),
    ContentFile(
        "a backup that you made",
        "all tables",
        "when you delete it",
        "not reached",
    ),
    ContentFile(
        "exports of captures, suites made of them, reports, data files",
        "content that you requested for people and tools",
        "when you delete it",
        "not reached",
    ),
    ContentFile(
        "traces with `router.tracing.content: true`",
        "requests and answers, at your collector",
        "by the collector",
        "not reached",
    ),
)
