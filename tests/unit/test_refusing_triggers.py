"""The SQL of the triggers agrees with the code whose rules it repeats."""

import re
from datetime import timedelta
from typing import Final

import pytest
import sqlalchemy as sa

from harness.agents.records import agent_grant, agent_switch
from harness.app.store.guards import BY_SUBJECT, KEPT_UNTIL_END, REFUSING, RefusingTrigger
from harness.app.store.tables import APPEND_ONLY, metadata
from harness.frame.records.columns import SIGNATURE
from harness.gate.online.rollout import TRANSITIONS, RolloutState, name_first_callers
from harness.routing.evidence import MAX_DURATION
from harness.routing.records.interventions import shadow, switch
from harness.routing.records.proposals import (
    LIVE_STATE_VALUES,
    OPEN_PHASE_VALUES,
    PAST_GATE_VALUES,
    PROPOSAL_REGISTERED,
    ROLLOUT_REGISTERED,
)
from harness.routing.records.runs import sample

pytestmark = pytest.mark.req("F1", "F5")

NAMED: Final = {trigger.name: trigger for trigger in REFUSING}
# The functions with which each database reads a policy or a list in JSON.
JSON: Final = (
    (r"json_extract\(([pq])\.policy, '\$\.(\w+)'\)", r"(\1.policy)::json ->> '\2'"),
    (
        r"json_array_length\(q\.policy, '\$\.canary\.steps'\)",
        "json_array_length((q.policy)::json -> 'canary' -> 'steps')",
    ),
    (
        (
            r"json_extract\(q\.policy, '\$\.canary\.steps\[' \|\| \((.*?)\)"
            r" \|\| '\]\.weight_bps'\)"
        ),
        r"((q.policy)::json -> 'canary' -> 'steps' -> (\1)::int ->> 'weight_bps')::bigint",
    ),
    (r"json_array_length\(NEW\.targets\)", "json_array_length((NEW.targets)::json)"),
)


def plain(text: str) -> str:
    return " ".join(text.split()).replace("( ", "(").replace(" )", ")")


def rules(trigger: RefusingTrigger, pattern: str, text: str) -> list[tuple[str, str]]:
    """Returns the messages and conditions of a text in which each word is part of a rule."""
    found = [(rule["message"], rule["condition"]) for rule in re.finditer(pattern, plain(text))]
    rest = re.sub(pattern, "", plain(text))
    assert rest.strip() == "", f"{trigger.name}: {rest}"
    return found


@pytest.mark.parametrize("trigger", REFUSING, ids=lambda trigger: trigger.name)
def test_both_databases_refuse_the_same_rows_with_the_same_messages(
    trigger: RefusingTrigger,
) -> None:
    sqlite = rules(
        trigger,
        r"SELECT RAISE\(ABORT, '(?P<message>(?:[^']|'')*)'\) WHERE (?P<condition>[^;]*);",
        trigger.sqlite,
    )
    postgres = rules(
        trigger,
        r"IF (?P<condition>[^;]*?) THEN RAISE EXCEPTION '(?P<message>(?:[^']|'')*)'"
        r" USING ERRCODE = 'integrity_constraint_violation'; END IF;",
        trigger.postgres,
    )
    translated = []
    for message, condition in sqlite:
        text = re.sub(r"\bIS NOT (?!NULL)", "IS DISTINCT FROM ", condition)
        for of_sqlite, of_postgres in JSON:
            text = re.sub(of_sqlite, of_postgres, text)
        translated.append((message, text))
    assert [
        (message, condition.replace("public.", "")) for message, condition in postgres
    ] == translated
    assert tuple(message.replace("''", "'") for message, _ in sqlite) == trigger.messages


def test_every_table_of_postgresql_is_named_with_its_schema() -> None:
    """Otherwise a temporary table of the same name could take its place."""
    for trigger in REFUSING:
        named = re.findall(r"\b(?:FROM|JOIN|UPDATE) (?!OLD\b)([\w.]+)", trigger.postgres)
        tables = [name for name in named if name.removeprefix("public.") in metadata.tables]
        assert [name for name in tables if not name.startswith("public.")] == [], trigger.name


def test_no_text_has_a_comment_or_spaces_that_mean_something() -> None:
    """The comparison with a database's triggers ignores line breaks and indentation."""
    for trigger in REFUSING:
        for text in (trigger.sqlite, trigger.postgres):
            assert "--" not in text
            assert "/*" not in text
            for literal in re.findall(r"'[^'\n]*'", text):
                assert "( " not in literal
                assert " )" not in literal
                assert "  " not in literal


def test_each_append_only_table_refuses_changes_and_deletions() -> None:
    appended = {trigger.table for trigger in BY_SUBJECT["Append-only tables"]}
    assert appended | {"sample"} == {table.name for table in APPEND_ONLY}
    for table in APPEND_ONLY:
        events = {trigger.event for trigger in REFUSING if trigger.table == table.name}
        assert {"UPDATE", "DELETE"} <= events, table.name


def watched(name: str) -> set[str]:
    """Returns the columns that the trigger never lets change."""
    changed = re.findall(r"NEW\.(\w+) IS NOT OLD\.(\w+)", NAMED[name].sqlite)
    assert all(new == old for new, old in changed)
    return {new for new, _ in changed}


def columns(table: sa.Table, *without: str) -> set[str]:
    return {column.name for column in table.c} - {*without}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("switch_no_rewrite", columns(switch, "lifted_at", "lifted_by", SIGNATURE)),
        (
            "shadow_no_rewrite",
            columns(shadow, "ended_at", "ended_by", "ended_because", SIGNATURE),
        ),
        ("agent_grant_no_rewrite", columns(agent_grant, "revoked_at", SIGNATURE)),
        (
            "agent_switch_no_rewrite",
            columns(agent_switch, "model_requested", "reason", "facts"),
        ),
    ],
)
def test_a_row_that_closes_once_changes_in_no_other_column(
    name: str, expected: set[str]
) -> None:
    assert watched(name) == expected


def test_every_number_of_a_sample_stays_as_it_was_measured() -> None:
    texts = columns(sample) - {"answer", "prompt", "error_text", SIGNATURE}
    assert set(NAMED["sample_no_update"].columns) == texts
    assert set(NAMED["sample_blank_only"].columns) == {"answer", "prompt", "error_text"}


def test_what_was_registered_stays() -> None:
    assert set(PROPOSAL_REGISTERED) <= watched("proposal_no_rewrite")
    assert set(ROLLOUT_REGISTERED) == watched("rollout_no_rewrite")


def among(values: tuple[str, ...]) -> str:
    return f"IN ({', '.join(repr(value) for value in values)})"


def test_the_states_are_those_of_the_code() -> None:
    for name in ("proposal_guard", "proposal_no_rewrite"):
        assert among(OPEN_PHASE_VALUES) in plain(NAMED[name].sqlite)
    assert among(PAST_GATE_VALUES) in plain(NAMED["proposal_no_rewrite"].sqlite)
    live_rules = ("rollout_guard", "rollout_no_rewrite", "route_version_proof_guard")
    for name in (*live_rules, *(f"{table}_no_delete" for table in KEPT_UNTIL_END)):
        assert among(LIVE_STATE_VALUES) in plain(NAMED[name].sqlite)


def test_the_suffix_of_first_callers_is_that_of_the_code() -> None:
    suffix = name_first_callers("")
    for table in KEPT_UNTIL_END:
        text = plain(NAMED[f"{table}_no_delete"].sqlite)
        assert f"replace(OLD.rollout, '{suffix}', '')" in text


def test_a_rollout_takes_only_the_transitions_of_the_code() -> None:
    text = plain(NAMED["rollout_no_rewrite"].sqlite)
    allowed = {
        before: set(re.findall(r"'(\w+)'", after))
        for before, after in re.findall(
            r"OLD\.state = '(\w+)' AND NEW\.state NOT IN \(([^)]*)\)", text
        )
    }
    assert allowed == {
        state.value: {state.value}
        | {after.value for (before, _), after in TRANSITIONS.items() if before is state}
        for state in RolloutState
    }


def test_a_break_glass_lasts_as_long_as_the_code_allows() -> None:
    longest_us = MAX_DURATION // timedelta(microseconds=1)
    assert f"NEW.created_at + {longest_us}" in NAMED["break_glass_guard"].sqlite
