"""`swapgate init`. It prints keys and a link once, and keeps what is there."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.app.installation import open_installation
from harness.frame.errors import InputError, NotFound
from harness.frame.people.principals import OPERATOR
from harness.frame.suggestions import did_you_mean
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import command, opt
from harness.interfaces.cli.frame.session import Session
from harness.proposals import first_route
from harness.proposals.first_route import (
    SIMULATOR,
    FirstRoute,
    FirstRouteResult,
    provider_choices,
    usual_address,
)
from harness.providers.kinds import PROVIDER_KINDS
from harness.providers.records import Providers
from harness.providers.target import Provider
from harness.registry.registered_providers import default_provider
from harness.routes import routes
from harness.routing.keep_warm import parse_keep_warm_share
from harness.routing.route_changes import check_route_name

if TYPE_CHECKING:
    from harness.app.set_up import ConfigImport, FoundKey, SetUpResult

GATEWAYS = ("litellm",)


class _Gateway(click.Choice[str]):
    def get_invalid_choice_message(self, value: object, ctx: click.Context | None) -> str:
        said = super().get_invalid_choice_message(value, ctx)
        return f"{said} Write `providers` and `routes` of another gateway by hand."


@command()
def init(
    session: Session,
    *,
    guided: bool = opt("Ask for a first provider, route and proposal, and make them."),
    source: tuple[str, Path] | None = opt(
        "Take over the configuration of LiteLLM's proxy.",
        "--from",
        nargs=2,
        type=(_Gateway(GATEWAYS), click.Path(path_type=Path)),
        metavar="GATEWAY FILE",
    ),
    yes: bool = opt("Write the providers of the keys that it finds, without asking."),
) -> None:
    """Set up Swapgate in this folder.

    Writes swapgate.yaml, the secret and the database, and prints an admin's key and a client's
    key, this once. It keeps files that are there.

    It writes the providers whose keys it finds in `.env` and the environment once you agree.

    --from litellm config.yaml converts LiteLLM's configuration, and reports on each key.
    """
    from harness.app.set_up import import_config, set_up  # noqa: PLC0415

    if guided and session.json:
        raise click.UsageError("--guided asks questions, and --json answers none")
    taken = import_config(*source, session.config) if source else None
    done = set_up(session.config, takes=lambda keys: _agrees(keys, yes=yes))
    if output.documented({"import": taken, **asdict(done)} if taken else done):
        return
    if taken:
        _print_import(taken)
    _print_files(done, taken)
    _print_keys(done)
    _ask_keep_warm(session.config, done)
    if guided:
        guide(session.config)
        return
    missing = "a route" if done.has_providers else "a provider and a route"
    first = f"name {missing} in {done.config}, or let `swapgate init --guided` ask; "
    if done.has_routes:
        first = ""
    output.note(f"next: {first}`swapgate serve all`, and `swapgate doctor` once it runs")


def _print_files(done: "SetUpResult", taken: "ConfigImport | None") -> None:
    for name in done.created:
        click.echo(f"created {name}")
    for name in done.kept:
        if taken and name == taken.config:
            continue
        click.echo(f"kept {name}: it was there, and is as it was")
    for name in done.seeded:
        click.echo(f"added {name} from {done.config}")
    for key in done.found_keys:
        output.note(
            f"found {key.text}, and no provider uses it: `swapgate provider add "
            f"{key.provider}` adds its provider"
        )


def _agrees(found: "Sequence[FoundKey]", *, yes: bool) -> bool:
    """Asks on a terminal alone."""
    if not (yes or is_terminal()):
        return False
    output.note(f"found {', '.join(key.text for key in found)}")
    names = ", ".join(key.provider for key in found)
    return yes or click.confirm(f"Write their providers ({names})?", default=True, err=True)


def _print_keys(done: "SetUpResult") -> None:
    if done.admin_key is None:
        output.note("there are keys already: `swapgate key create` makes more")
        return
    output.facts(
        [
            ("admin key", done.admin_key),
            ("client key", done.data_key),
            ("dashboard", done.sign_in_link),
        ]
    )
    output.note("the keys are not shown again: keep them now")
    output.note(
        "the dashboard's link signs you in once, within an hour; "
        "`swapgate key sign-in-link` prints another"
    )


WARM_SHARE = "1%"


def is_terminal() -> bool:
    return sys.stdin.isatty()


def _ask_keep_warm(config: Path | None, done: "SetUpResult") -> None:
    if not done.not_warm:
        return
    if not is_terminal():
        output.note(
            f"no request tries the other provider of {output.name_some(done.not_warm)} before "
            f"it is needed: `swapgate route settings ROUTE --keep-warm {WARM_SHARE}`"
        )
        return
    share = parse_keep_warm_share(WARM_SHARE)
    question = (
        f"Send {WARM_SHARE} of {{}}'s callers to its fallback at another provider, to know "
        "that it works?"
    )
    warm = [
        name
        for name in done.not_warm
        if click.confirm(question.format(name), default=True, err=True)
    ]
    installation = open_installation(config)
    try:
        for name in warm:
            routes.change_settings(
                installation.context,
                OPERATOR,
                name,
                lambda settings: replace(settings, keep_warm_bps=share),
            )
            place = f"routes.{name} in {done.config}"
            output.note(f"write `keep_warm: {WARM_SHARE}` under {place}, too")
    finally:
        installation.close()


def _print_import(done: "ConfigImport") -> None:
    conversion = done.conversion
    click.echo(f"created {done.config} from {done.source}")
    output.conversion(conversion.notes)
    if conversion.variables:
        output.note(f"set before `swapgate serve all`: {', '.join(conversion.variables)}")
    if "routes" not in conversion.config:
        output.note("no route was taken over: the report says why")


NONE = "-"
SIMULATOR_HINT = (
    "the simulator needs no key: `swapgate sim` serves it, on a terminal of its own"
)


def guide(config: Path | None) -> None:
    """Asks for a first route and makes it. Raises InputError where there is one."""
    installation = open_installation(config)
    try:
        ctx = installation.context
        if there := sorted(routes.load_table(ctx).routes):
            raise InputError(
                f"there is a route already ({there[0]}), and --guided makes the first: "
                "`swapgate route create` makes more"
            )
        with ctx.store.read() as tx:
            providers = Providers(tx).all()
        wanted = _ask(providers, sorted(ctx.suites.names()), sorted(ctx.policies))
        made = first_route.create_first_route(ctx, OPERATOR, wanted)
    finally:
        installation.close()
    _print(made, wanted)


def _ask(
    providers: Mapping[str, Provider], suites: list[str], policies: list[str]
) -> FirstRoute:
    """providers: those that are there. A wrong answer is asked again where it was given."""
    usual = FirstRoute()
    output.note("A first route, in a few questions; Return takes what stands in brackets.")
    output.note(f"Providers: {', '.join(provider_choices())}, or a name of yours")
    provider, address = _ask_provider(usual.provider, sorted(providers))
    simulated = provider == SIMULATOR
    return FirstRoute(
        provider=provider,
        api_base=address,
        key="" if simulated else _ask_key(provider, providers.get(provider)),
        model=_prompt("Model that serves now", usual.model if simulated else None),
        route=_prompt(
            "Route, the name that clients use as `model`", usual.route, check=check_route_name
        ),
        suite=_choose("Suite that decides", suites, usual.suite),
        policy=_choose("Policy", policies, usual.policy if simulated else "default"),
        candidate=_prompt(
            "Candidate to propose now (- for none)", usual.candidate if simulated else NONE
        ).removeprefix(NONE),
    )


def _ask_key(name: str, known: Provider | None) -> str:
    """Empty where the provider's variable has the key; a new one's is its vendor's."""
    kind = PROVIDER_KINDS.get(name)
    variable = known.api_key_env if known else kind.key_env if kind else ""
    if variable and os.environ.get(variable):
        output.note(f"Its key is in {variable}.")
        return ""
    return _prompt("Its key (not shown; Return for none)", "", hide=True)


def _ask_provider(usual: str, there: list[str]) -> tuple[str, str]:
    while True:
        provider = _prompt("Provider", usual)
        if provider == SIMULATOR:
            output.note(SIMULATOR_HINT)
        elif provider not in (*there, *provider_choices()):
            hint = did_you_mean(provider, [*there, *provider_choices()])
            output.note(
                f"{provider!r} is a name of yours, for an OpenAI-compatible server, which "
                f"needs its address{hint}"
            )
        address = _prompt("Its address", usual_address(provider))
        try:
            if provider not in there:
                default_provider(provider, there, api_base=address)
        except (InputError, NotFound) as error:
            output.note(f"Error: {error}")
        else:
            return provider, address


def _prompt(
    question: str,
    default: str | None,
    *,
    hide: bool = False,
    check: Callable[[str], None] | None = None,
) -> str:
    """default: None where an answer is needed. check: raises InputError to ask again."""

    def checked(answer: str) -> str:
        try:
            if check is not None:
                check(answer.strip())
        except InputError as error:
            raise click.UsageError(str(error)) from None
        return answer.strip()

    return str(
        click.prompt(
            question,
            default=default,
            show_default=bool(default),
            hide_input=hide,
            value_proc=checked,
            err=True,
        )
    )


def _choose(question: str, names: list[str], usual: str) -> str:
    default = usual if usual in names else names[0]
    choice = click.Choice(names)
    return str(click.prompt(question, default=default, type=choice, err=True))


def _print(made: FirstRouteResult, wanted: FirstRoute) -> None:
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
