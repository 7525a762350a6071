"""`swapgate init --guided` asks for what the first route needs, with a default for each answer,
and makes provider, key, route and first proposal of the answers.
"""

from typing import TYPE_CHECKING

import click

from harness.cli.frame import output
from harness.domain.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from harness.control.routing.first_route import FirstRoute, FirstRouteResult

NONE = "-"
SIMULATOR_HINT = (
    "the simulator needs no key: `swapgate sim` serves it, on a terminal of its own"
)


def guide(config: "Path | None") -> None:
    """Ask for a first route and make it. Raises as `create_first_route`, and InputError where
    there is a route already.
    """
    from harness.app.installation import open_installation  # noqa: PLC0415 - `--help` stays quick
    from harness.control.routing import first_route, routes  # noqa: PLC0415 - as above
    from harness.domain.operations.principals import OPERATOR  # noqa: PLC0415 - as above

    installation = open_installation(config)
    try:
        ctx = installation.context
        if there := sorted(routes.load_table(ctx).routes):
            raise InputError(
                f"there is a route already ({there[0]}), and --guided makes the first: "
                "`swapgate route create` makes more"
            )
        wanted = _ask(sorted(ctx.suites.names()), sorted(installation.settings.policies))
        made = first_route.create_first_route(ctx, OPERATOR, wanted)
    finally:
        installation.close()
    _print(made, wanted)


def _ask(suites: list[str], policies: list[str]) -> "FirstRoute":
    from harness.control.routing.first_route import (  # noqa: PLC0415 - as above
        SIMULATOR,
        FirstRoute,
        provider_choices,
        usual_address,
    )

    usual = FirstRoute()
    output.note("A first route, in a few questions; Return takes what stands in brackets.")
    output.note(f"Providers: {', '.join(provider_choices())}, or a name of yours")
    provider = _prompt("Provider", usual.provider)
    simulated = provider == SIMULATOR
    if simulated:
        output.note(SIMULATOR_HINT)
    return FirstRoute(
        provider=provider,
        api_base=_prompt("Its address", usual_address(provider)),
        key="" if simulated else _prompt("Its key (not shown; Return for none)", "", hide=True),
        model=_prompt("Model that serves now", usual.model if simulated else None),
        route=_prompt("Route, the name that clients use as `model`", usual.route),
        suite=_choose("Suite that decides", suites, usual.suite),
        policy=_choose("Policy", policies, usual.policy if simulated else "default"),
        candidate=_prompt(
            "Candidate to propose now (- for none)", usual.candidate if simulated else NONE
        ).removeprefix(NONE),
    )


def _prompt(question: str, default: str | None, *, hide: bool = False) -> str:
    """default: None where an answer is needed."""
    answer = click.prompt(
        question, default=default, show_default=bool(default), hide_input=hide, err=True
    )
    return str(answer).strip()


def _choose(question: str, names: list[str], usual: str) -> str:
    default = usual if usual in names else names[0]
    choice = click.Choice(names)
    return str(click.prompt(question, default=default, type=choice, err=True))


def _print(made: "FirstRouteResult", wanted: "FirstRoute") -> None:
    click.echo(f"created route {wanted.route}: {wanted.provider}/{wanted.model} serves it")
    if made.proposal:
        click.echo(f"proposed {wanted.provider}/{wanted.candidate} ({made.proposal})")
    if made.check is not None:
        for finding in made.check.findings:
            if finding.next_step:
                output.note(f"{wanted.provider}: {finding.found}; {finding.next_step}")
    output.note("next: `swapgate serve all`, and `swapgate doctor` once it runs")
    if made.proposal:
        output.note(
            "then, with the client key in SWAPGATE_KEY, "
            f"`swapgate sim traffic {wanted.route} --until-settled` brings the canary users"
        )
