from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.errors import InputError
from harness.providers.force import (
    Force,
    ForceKind,
    KillSwitch,
    SwitchSource,
    active_switches,
    decide_plan,
    force_plan,
    parse_environment_switches,
    parse_force,
    ruling_switch,
)
from harness.providers.target import Target

pytestmark = pytest.mark.req("B11")

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OPENAI = Force(ForceKind.PROVIDER, "openai")


def switch(
    id_: str,
    source: SwitchSource = SwitchSource.CLI,
    route: str | None = None,
    hour: int = 0,
    expires: int | None = None,
) -> KillSwitch:
    expires_at = None if expires is None else NOW + timedelta(hours=expires)
    at = NOW + timedelta(hours=hour)
    return KillSwitch(id_, route, OPENAI, "outage", "ada", at, expires_at, source)


def ids(kill_switches: tuple[KillSwitch, ...]) -> list[str]:
    return [kill_switch.id for kill_switch in kill_switches]


def test_a_switch_is_in_force_until_it_expires() -> None:
    ends_now = switch("a", expires=0)
    ends_later = switch("b", expires=1)

    assert ids(active_switches([ends_now, ends_later, switch("c")], NOW)) == [
        "c",
        "b",
    ]


def test_the_environment_is_the_strongest_then_a_command_then_the_file() -> None:
    config = switch("config", SwitchSource.CONFIG, "chat", hour=9)
    command = switch("command", SwitchSource.REST, hour=8)
    environment = switch("environment", SwitchSource.ENVIRONMENT)

    assert ids(active_switches([config, environment, command], NOW)) == [
        "environment",
        "command",
        "config",
    ]


def test_one_route_comes_before_all_and_the_newest_before_older_ones() -> None:
    older = switch("older", SwitchSource.CLI, "chat", 1)
    newer = switch("newer", SwitchSource.REST, "chat", 2)
    every = switch("every", hour=3)

    assert ruling_switch([older, newer, every], "chat") == newer
    assert ruling_switch([older, newer, every], "code") == every
    assert ruling_switch([older, newer], "code") is None
    assert ruling_switch([switch("a"), switch("b")], "chat") == switch("b")


PLAN = (
    Target("openai", "gpt"),
    Target("mistral", "large"),
    Target("openai", "mini"),
)
T1, T2, T3 = (target.id for target in PLAN)


@pytest.mark.parametrize(
    ("kind", "name", "kept"),
    [
        (ForceKind.PROVIDER, "openai", (T1, T3)),
        (ForceKind.PROVIDER, "mistral", (T2,)),
        (ForceKind.TARGET, T3, (T3,)),
        (ForceKind.TARGET, "openai/mini", (T3,)),
    ],
)
def test_only_what_is_forced_stays_and_in_its_order(
    kind: ForceKind,
    name: str,
    kept: tuple[str, ...],
) -> None:
    by = KillSwitch(
        "s-7",
        None,
        Force(kind, name),
        "outage",
        "ada",
        NOW,
        None,
        SwitchSource.CLI,
    )
    plan = force_plan(by, PLAN)

    assert (plan.kept, plan.in_effect, plan.switch) == (kept, True, by)
    assert plan.reason == f"{kind.value} {name} for all routes (switch s-7) is forced"


def test_provider_and_model_name_all_targets_of_the_model_unless_one_has_that_name() -> None:
    plain = Target("openai", "gpt")
    warm = Target("openai", "gpt", {"temperature": 1})
    cold = Target("openai", "gpt", {"temperature": 0})
    mini = Target("openai", "mini")
    by = replace(switch("s"), force=parse_force("target:openai/gpt"))

    assert force_plan(by, [warm, mini, cold]).kept == (warm.id, cold.id)
    assert force_plan(by, [warm, plain, mini]).kept == (plain.id,)
    avoided = replace(by, force=parse_force("avoid:target:openai/gpt"))
    assert force_plan(avoided, [warm, mini, cold]).kept == (mini.id,)


@pytest.mark.parametrize(
    ("forces", "kept", "in_effect"),
    [
        (["avoid:provider:openai"], [T2], True),
        (["avoid:target:openai/gpt"], [T2, T3], True),
        ([f"avoid:target:{T1}", "avoid:provider:mistral"], [T3], True),
        ([f"avoid:target:{T1}", "provider:openai"], [T3], True),
        (["provider:openai", f"avoid:target:{T1}"], [T3], True),
        (["avoid:provider:openai", "provider:openai"], [T2], True),
        (
            ["avoid:provider:openai", "avoid:provider:mistral"],
            [T1, T3],
            True,
        ),
        (["avoid:provider:groq"], [T1, T2, T3], False),
    ],
)
def test_what_is_avoided_leaves_the_chain_which_is_never_empty(
    forces: list[str],
    kept: list[str],
    *,
    in_effect: bool,
) -> None:
    switches = [
        replace(switch(f"s-{number}", hour=number), force=parse_force(force))
        for number, force in enumerate(forces)
    ]
    plan = decide_plan(switches, "chat", PLAN)

    assert plan is not None
    assert (list(plan.kept), plan.in_effect) == (kept, in_effect)
    assert decide_plan([], "chat", PLAN) is None


def test_the_environments_switches_are_read() -> None:
    text = " provider:openai, chat=provider:mistral ,code = target : t_1, x=target:ollama/a:8b"
    text += ", avoid:provider:a, avoid:provider:b"
    kill_switches = parse_environment_switches(text, NOW)

    assert [(kill_switch.route, str(kill_switch.force)) for kill_switch in kill_switches] == [
        (None, "provider:openai"),
        ("chat", "provider:mistral"),
        ("code", "target:t_1"),
        ("x", "target:ollama/a:8b"),
        (None, "avoid:provider:a"),
        (None, "avoid:provider:b"),
    ]
    assert {kill_switch.source for kill_switch in kill_switches} == {SwitchSource.ENVIRONMENT}
    assert {
        (kill_switch.created_at, kill_switch.expires_at) for kill_switch in kill_switches
    } == {(NOW, None)}
    assert len({kill_switch.id for kill_switch in kill_switches}) == 6
    assert parse_environment_switches("  ", NOW) == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "openai",
            r"item 1 \('openai'\) is not a switch; write provider:NAME",
        ),
        ("provider:a,", r"item 2 \(''\) is not a switch"),
        ("provider:a,modell:b", r"item 2 \('modell:b'\)"),
        ("=provider:a", r"item 1 \('=provider:a'\) is not a switch"),
        ("chat=", r"is not a switch"),
        ("provider:", r"names no provider"),
        ("chat=target: ", r"names no target"),
        (
            "provider:a,target:b",
            r"item 2 .*all routes for a second time.*provider:a",
        ),
        ("c=provider:a,c=target:b", r"item 2 .*route 'c' for a second time"),
    ],
)
def test_a_switch_that_cannot_be_read_is_refused_with_its_place(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        parse_environment_switches(text, NOW)

    assert str(refused.value).startswith("SWAPPROOF_FORCE: ")


def test_a_person_who_misspells_a_freeze_reads_how_to_write_it() -> None:
    for text in ("freez", "avoid:freeze", "freeze:chat"):
        with pytest.raises(InputError, match=r"is not a switch; write .* or freeze$"):
            parse_force(text)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        kill_switches = parse_environment_switches(text, NOW)
    except InputError:
        return
    ruling = [one for one in kill_switches if not one.force.avoids]
    assert len({kill_switch.route for kill_switch in ruling}) == len(ruling)
