from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from harness.app import installation
from harness.frame.errors import (
    ConfigError,
    InputError,
    NotAllowed,
    NotFound,
)
from harness.frame.people.access import Actor, Role
from harness.frame.signing.audit_log import AuditLog
from harness.providers.force import (
    ENVIRONMENT_VARIABLE,
    Force,
    ForceKind,
    SwitchSource,
    parse_force,
)
from harness.routing.control import freezes
from harness.routing.control.freezes import SwitchRequest
from tests.support.control.control_plane import SmallInstallation
from tests.support.site.command_line import CommandLine, installed
from tests.support.site.management_api import Door, error_of

BEN = Actor("ben", Role.APPROVER, "pr_ben")
SIM = Force(ForceKind.PROVIDER, "sim")


@pytest.fixture
def cli(
    tmp_path: Path,
    sqlite_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[CommandLine]:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    with installed(tmp_path, sqlite_url, monkeypatch) as made:
        yield made


@pytest.mark.req("B11")
def test_a_switch_is_live_until_it_expires_or_is_lifted_and_all_of_it_is_audited(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    hour = timedelta(hours=1)
    short = freezes.set_switch(
        ctx,
        BEN,
        SwitchRequest(SIM, "outage", lasts=hour),
        source=SwitchSource.CLI,
    )
    long = freezes.set_switch(
        ctx,
        BEN,
        SwitchRequest(SIM, "outage", "chat"),
        source=SwitchSource.REST,
    )
    assert list(freezes.list_live_switches(ctx)) == [long, short]

    world.clock.advance(3600)
    assert list(freezes.list_live_switches(ctx)) == [long]

    for _ in range(2):
        freezes.lift_switch(ctx, Actor("ada", Role.ADMIN, "pr_ada"), long.id, reason="over")
    assert list(freezes.list_live_switches(ctx)) == []
    assert len(ctx.store.lists.switches()) == 2
    with ctx.store.read() as tx:
        events = [event for event in AuditLog(tx).tail() if event.action.startswith("switch.")]
    assert [(event.actor, event.action) for event in reversed(events)] == [
        ("ben", "switch.throw"),
        ("ben", "switch.throw"),
        ("ada", "switch.lift"),
    ]
    assert events[-1].details == {
        "force": "provider:sim",
        "route": "all",
        "reason": "outage",
        "starts_at": short.created_at.isoformat(),
        "expires_at": (short.created_at + hour).isoformat(),
        "source": "cli",
    }


@pytest.mark.parametrize(
    "wanted",
    [
        SwitchRequest(Force(ForceKind.PROVIDER, "smi"), "a typing error"),
        SwitchRequest(Force(ForceKind.TARGET, "sim/nobody"), "a typing error"),
        SwitchRequest(SIM, "a typing error", "chatt"),
    ],
)
def test_what_is_not_known_cannot_be_forced(
    world: SmallInstallation, wanted: SwitchRequest
) -> None:
    with pytest.raises(NotFound):
        freezes.set_switch(world.context(), BEN, wanted, source=SwitchSource.CLI)


def test_a_switch_needs_a_reason_an_approver_and_some_time(world: SmallInstallation) -> None:
    ctx = world.context()
    ann = Actor("ann", Role.PROPOSER, "pr_ann")
    with pytest.raises(NotAllowed):
        freezes.set_switch(ctx, ann, SwitchRequest(SIM, "outage"), source=SwitchSource.CLI)
    with pytest.raises(NotAllowed):
        freezes.lift_switch(ctx, ann, "sw_1", reason="over")
    with pytest.raises(InputError, match="reason"):
        freezes.set_switch(ctx, BEN, SwitchRequest(SIM, " "), source=SwitchSource.CLI)
    for lasts in (timedelta(0), timedelta(days=366)):
        with pytest.raises(InputError, match="year"):
            freezes.set_switch(
                ctx,
                BEN,
                SwitchRequest(SIM, "outage", lasts=lasts),
                source=SwitchSource.CLI,
            )


@pytest.mark.parametrize(
    "body",
    [
        {"force": "sim", "reason": "what of it?"},
        {"force": "chat=provider:sim", "reason": "the route stands apart"},
        {"force": "provider:sim", "reason": ""},
        {
            "force": "provider:sim",
            "reason": "too short",
            "for_s": 0,
        },
        {"force": "provider:sim"},
    ],
)
def test_the_api_refuses_what_it_cannot_read(
    world: SmallInstallation, body: dict[str, object]
) -> None:
    error_of(Door(world).send("POST", "/switches", json=body), 422)


@pytest.mark.req("B11")
def test_who_throws_a_switch_is_told_which_routes_it_does_not_reach(cli: CommandLine) -> None:
    cli.run("model", "add", "sim/better")

    def throw_switch(force: str) -> str:
        return cli.run("switch", "throw", force, "--reason", "drill").stderr

    assert "keep their plans: chat" in throw_switch("target:sim/better")
    assert "keep their plans" not in throw_switch("provider:sim")
    why = ("--reason", "drill")
    cli.run(
        "route",
        "fallback",
        "add",
        "chat",
        "sim/better",
        "--waive=x",
        "--for=1d",
        *why,
    )
    assert "keep their plans" not in throw_switch("target:sim/better")
    cli.run("route", "settings", "chat", "--stakes=high")
    assert "keep their plans: chat" in throw_switch("target:sim/better")
    cli.run("route", "fallback", "mark", "chat", "sim/better", "--capable", *why)
    assert "keep their plans" not in throw_switch("target:sim/better")


@pytest.mark.spine
@pytest.mark.req("B11")
def test_environment_and_file_stand_beside_the_database(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cli.folder / "swapproof.yaml"
    file.write_text(file.read_text() + 'switches: ["chat=target:sim/base"]\n')
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "provider:sim")

    standing = installation.open_installation().standing_switches

    assert [(switch.id, switch.route, switch.force) for switch in standing] == [
        ("environment-1", None, SIM),
        ("config-1", "chat", parse_force("target:sim/base")),
    ]
    stderr = cli.run("switch", "list").stderr
    assert "set in SWAPPROOF_FORCE: provider:sim for all" in stderr
    assert "set in switches: target:sim/base for chat" in stderr


def test_a_standing_switch_that_cannot_be_read_stops_the_start_with_its_place(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "sim")
    with pytest.raises(ConfigError, match="SWAPPROOF_FORCE: item 1"):
        _ = installation.open_installation().standing_switches

    file = cli.folder / "swapproof.yaml"
    file.write_text(file.read_text() + "switches:\n  - provider:sim\n  - provider:up\n")
    with pytest.raises(ConfigError, match=r"swapproof\.yaml:\d+: switches: item 2"):
        installation.load_settings()
