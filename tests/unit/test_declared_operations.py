"""Declared operations, and the commands, endpoints and dialogs that follow from them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner
from fastapi import APIRouter
from pydantic import ValidationError

from harness.agents.operations import AGENTS
from harness.canary.shadow_operations import SHADOWS
from harness.frame.configuration.setting import Range
from harness.frame.errors import NotAllowed
from harness.frame.operation import FinishedOperation, Operation, OperationGroup, Parameter
from harness.frame.people.access import OPERATOR, Actor, Role
from harness.interfaces.api.app import PREFIX, documented_answers
from harness.interfaces.api.frame.operation_endpoint import add_endpoints, operation_body
from harness.interfaces.cli.frame.operation_command import operation_group
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.program import program
from harness.operations.operations import (
    BREAK_GLASS_LISTS,
    CAPTURES,
    GRANT_LISTS,
    KEYS,
    PEOPLE,
    USERS,
)
from harness.proposals.operations import BREAK_GLASSES, EVAL_RUNS, FALLBACKS, PROPOSALS
from harness.providers.registry.operations import PROVIDER_KEYS, PROVIDERS
from harness.routing.control.operations import SWITCHES

GROUPS = (
    AGENTS,
    BREAK_GLASSES,
    BREAK_GLASS_LISTS,
    GRANT_LISTS,
    CAPTURES,
    EVAL_RUNS,
    FALLBACKS,
    KEYS,
    PEOPLE,
    PROPOSALS,
    PROVIDERS,
    PROVIDER_KEYS,
    SHADOWS,
    SWITCHES,
    USERS,
)
CLOCK_ALONE = SimpleNamespace(clock=SimpleNamespace(now=lambda: "now"))
ALL = [(group, operation) for group in GROUPS for operation in group.operations]
declared = pytest.mark.parametrize(
    ("group", "operation"), ALL, ids=[operation.id for _, operation in ALL]
)


def _command_at(path: str) -> click.Command:
    found: click.Command | None = program
    for word in path.split():
        assert isinstance(found, click.Group)
        found = found.get_command(click.Context(found), word)
    assert found is not None, path
    return found


@declared
def test_each_operation_is_in_every_interface_that_it_names(
    group: OperationGroup, operation: Operation[Any]
) -> None:
    assert operation.command or operation.endpoint
    if operation.command:
        found = _command_at(f"{group.command} {operation.verb}")
        assert (found.help or "").split() == operation.words.split()
        arguments = [given for given in found.params if isinstance(given, click.Argument)]
        assert [given.metavar for given in arguments] == list(operation.argument_names)
        assert operation.listing or operation.done
    if operation.endpoint:
        method, path = operation.endpoint.split()
        assert (PREFIX + path, method.lower()) in documented_answers()


@pytest.mark.req("G2")
@pytest.mark.parametrize(
    "operation",
    [operation for _, operation in ALL if operation.role > Role.PROPOSER],
    ids=lambda operation: operation.id,
)
def test_each_use_case_refuses_an_actor_below_the_declared_role(
    operation: Operation[Any],
) -> None:
    """It refuses before it reads anything: the context has only a clock."""
    below = Actor("vera", Role(operation.role - 1), "pr_vera")
    caller = SimpleNamespace(ctx=CLOCK_ALONE, actor=below, secret=b"s")
    given = {entered.name: "x" for entered in operation.inputs if entered.is_required}
    with pytest.raises(NotAllowed):
        operation.run(caller, given)


class Pace(StrEnum):
    SLOW = "slow"
    FAST = "fast"


@dataclass
class Recorded:
    """Records the calls of a use case."""

    calls: list[dict[str, Any]] = field(default_factory=list)

    def use_case(self) -> Callable[..., str]:
        def water_plant(
            ctx: Any,
            actor: Actor,
            plant: str,
            *,
            litres: float,
            pace: Pace = Pace.SLOW,
            lasts: timedelta = timedelta(hours=1),
            twice: bool = False,
            reason: str = "",
        ) -> str:
            """Waters a plant. Raises NotFound.

            Args:
                plant: its name.
            """
            assert ctx.clock
            given = {
                "actor": actor.name,
                "plant": plant,
                "litres": litres,
                "pace": pace,
                "lasts": lasts,
                "twice": twice,
                "reason": reason,
            }
            self.calls.append(given)
            return f"{plant}-1"

        return water_plant


def _watering(recorded: Recorded) -> Operation[str]:
    return Operation(
        use_case=recorded.use_case(),
        role=Role.PROPOSER,
        words="Water PLANT.",
        command="water PLANT",
        endpoint="POST /plants/{plant}/water",
        parameters={
            "litres": Parameter(meaning="How much.", range=Range(0, math.inf, above=True)),
            "lasts": Parameter(meaning="For how long.", flags=("--for",), api_name="for_s"),
        },
        done=lambda watered: f"{watered.result} has {watered.inputs['litres']:g} litres",
        document=lambda watered: {"plant": watered.result},
    )


def _run(operation: Operation[Any], *words: str) -> Any:
    group = operation_group(
        OperationGroup(command="garden", words="The garden.", operations=(operation,))
    )
    session = Session()
    vars(session)["installation"] = SimpleNamespace(context=CLOCK_ALONE, close=lambda: None)
    vars(session)["actor"] = OPERATOR
    vars(session)["knows_other_principals"] = True
    return CliRunner().invoke(group, words, obj=session)


def test_a_command_reads_arguments_and_options_by_the_types_of_the_use_case() -> None:
    recorded = Recorded()
    words = ("water", "fern", "--litres", "1.5", "--pace", "fast", "--for", "2h", "--twice")

    done = _run(_watering(recorded), *words)

    assert done.exit_code == 0, done.output
    assert done.stdout == "fern-1 has 1.5 litres\n"
    assert "acting as" in done.stderr
    [call] = recorded.calls
    assert call == {
        "actor": OPERATOR.name,
        "plant": "fern",
        "litres": 1.5,
        "pace": Pace.FAST,
        "lasts": timedelta(hours=2),
        "twice": True,
        "reason": "",
    }
    refused = _run(_watering(recorded), "water", "fern", "--litres", "0")
    assert refused.exit_code == 2
    assert "--litres" in refused.stderr


def test_the_body_of_an_endpoint_has_the_same_parameters_ranges_and_defaults() -> None:
    body = operation_body(_watering(Recorded()))

    assert body is not None
    assert body.__name__ == "WaterPlantBody"
    given = body.model_validate({"litres": 1, "for_s": 60.0})
    assert given.model_dump() == {
        "litres": 1.0,
        "pace": Pace.SLOW,
        "lasts": 60.0,
        "twice": False,
        "reason": "",
    }
    described = body.model_json_schema()["properties"]
    assert described["litres"]["description"] == "How much."
    assert described["litres"]["exclusiveMinimum"] == 0
    for wrong in ({}, {"litres": 0}, {"litres": 1, "more": 1}, {"litres": 1, "pace": "idle"}):
        with pytest.raises(ValidationError):
            body.model_validate(wrong)


def test_two_bodies_of_one_name_must_have_the_same_fields() -> None:
    def prune(ctx: Any, actor: Actor, plant: str, *, height: int) -> str:
        return f"{ctx}{actor}{plant}{height}"

    odd = Operation(
        use_case=prune,
        role=Role.PROPOSER,
        words="Prune PLANT.",
        endpoint="POST /plants/{plant}/prune",
        body="ReasonBody",
    )
    group = OperationGroup(command="garden", words="The garden.", operations=(odd,))
    with pytest.raises(TypeError, match="the body ReasonBody has other fields"):
        add_endpoints(APIRouter(), group)


def test_an_outcome_knows_its_inputs_by_name() -> None:
    recorded = Recorded()
    caller = SimpleNamespace(ctx=CLOCK_ALONE, actor=OPERATOR, secret=b"")

    outcome = _watering(recorded).run(caller, {"plant": "fern", "litres": 2.0})

    assert isinstance(outcome, FinishedOperation)
    assert outcome.result == "fern-1"
    assert outcome.inputs == {"plant": "fern", "litres": 2.0}
