"""`swapgate init`. It prints keys and a link once, and changes no existing file."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from harness.app.installation import open_installation
from harness.frame.configuration.config_conversion import NothingTaken
from harness.frame.configuration.setting_values import parse_share_bps
from harness.frame.errors import InputError, NotFound
from harness.frame.people.access import OPERATOR
from harness.frame.suggestions import did_you_mean
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import command, opt
from harness.interfaces.cli.frame.session import Session
from harness.operations.context import Context
from harness.proposals import first_route
from harness.proposals.first_route import (
    SIMULATOR,
    FirstRoute,
    FirstRouteResult,
    find_usual_address,
    list_provider_choices,
)
from harness.providers.kinds import PROVIDER_KINDS
from harness.providers.records import Providers
from harness.providers.registry.registered_providers import default_provider
from harness.providers.target import Provider
from harness.routing.control import routes
from harness.routing.route_changes import check_route_name

if TYPE_CHECKING:
    from harness.app.set_up import ConfigImport, FoundKey, SetUpResult

GATEWAYS = ("litellm",)


class _Gateway(click.Choice[str]):
    def get_invalid_choice_message(self, value: object, ctx: click.Context | None) -> str:
        text = super().get_invalid_choice_message(value, ctx)
        return f"{text} Write `providers` and `routes` of another gateway by hand."


@command()
def init(
    session: Session,
    *,
    guided: bool = opt("Ask for a first provider, route and proposal, and create them."),
    source: tuple[str, Path] | None = opt(
        "Convert the configuration of LiteLLM's proxy.",
        "--from",
        nargs=2,
        type=(_Gateway(GATEWAYS), click.Path(path_type=Path)),
        metavar="GATEWAY FILE",
    ),
    yes: bool = opt("Add providers for keys in `.env` and the environment without asking."),
) -> None:
    """Set up Swapgate in this folder.

    Writes swapgate.yaml, the secret and the database, and prints an admin key and a client key
    once. Keeps existing files.

    If `.env` or the environment has keys of known providers, the command adds these providers
    after you agree.

    `--from litellm config.yaml` converts LiteLLM's configuration, and reports on each setting.
    """
    from harness.app.set_up import import_config, set_up  # noqa: PLC0415

    if guided and session.json:
        raise click.UsageError("--guided asks questions, so it cannot be used with --json")
    try:
        taken = import_config(*source, session.config) if source else None
    except NothingTaken as error:
        if not session.json:
            output.conversion(error.notes)
        raise
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
    first = f"add {missing} to {done.config}, or run `swapgate init --guided`; then run "
    if done.has_routes:
        first = "run "
    output.note(f"next: {first}`swapgate serve all`, and `swapgate doctor` once it runs")


def _print_files(done: "SetUpResult", taken: "ConfigImport | None") -> None:
    for name in done.created:
        click.echo(f"created {name}")
    for name in done.kept:
        if taken and name == taken.config:
            continue
        click.echo(f"kept {name}: it existed, and did not change")
    for name in done.seeded:
        click.echo(f"added {name} from {done.config}")
    for key in done.found_keys:
        output.note(
            f"found {key.text}, but no provider uses it: `swapgate provider add "
            f"{key.provider}` adds its provider"
        )


def _agrees(found: "Sequence[FoundKey]", *, yes: bool) -> bool:
    """Returns whether the user agrees. Asks only on a terminal."""
    if not (yes or is_terminal()):
        return False
    output.note(f"found {', '.join(key.text for key in found)}")
    names = ", ".join(key.provider for key in found)
    return yes or click.confirm(f"Add their providers ({names})?", default=True, err=True)


def _print_keys(done: "SetUpResult") -> None:
    if done.admin_key is None:
        output.note("keys exist already: `swapgate key create` creates more")
        return
    output.facts(
        [
            ("admin key", done.admin_key),
            ("client key", done.data_key),
            ("dashboard", done.sign_in_link),
        ]
    )
    output.note("store the keys now: they are not shown again")
    output.note(
        "the dashboard link works once, within an hour; "
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
            f"the fallback provider of {output.name_some(done.not_warm)} gets no requests "
            "before a failure. To test it all the time: "
            f"`swapgate route settings {quote(done.not_warm[0])} --keep-warm {WARM_SHARE}`"
        )
        return
    share = parse_share_bps(WARM_SHARE, what="keep_warm")
    question = (
        f"Send {WARM_SHARE} of {{}}'s callers to its fallback at another provider, to test "
        "it all the time?"
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
            output.note(f"also write `keep_warm: {WARM_SHARE}` under {place}")
    finally:
        installation.close()


def _print_import(done: "ConfigImport") -> None:
    conversion = done.conversion
    click.echo(f"created {done.config} from {done.source}")
    output.conversion(conversion.notes)
    if conversion.variables:
        output.note(f"before `swapgate serve all`, set {', '.join(conversion.variables)}")
    if "routes" not in conversion.config:
        output.note("no route was taken over: see the reasons above")


NONE = "-"
MODELS_SHOWN = 20
SIMULATOR_HINT = "the simulator needs no key: start it with `swapgate sim` in another terminal"


def guide(config: Path | None) -> None:
    """Asks for a first route, creates it, and writes it into the file. Raises InputError if a
    route exists.
    """
    from harness.app.set_up import write_first_route  # noqa: PLC0415 - `--help` stays quick

    installation = open_installation(config)
    try:
        ctx = installation.context
        if there := sorted(routes.load_table(ctx).routes):
            raise InputError(
                f"route {there[0]} exists already, and --guided creates only the first route: "
                "`swapgate route create` creates more"
            )
        request = _ask(ctx)
        result = first_route.create_first_route(ctx, OPERATOR, request)
        with ctx.store.read() as tx:
            provider = Providers(tx).all()[request.provider]
    finally:
        installation.close()
    written = write_first_route(config, request, provider)
    _print(result, request, written=written)


def _ask(ctx: Context) -> FirstRoute:
    """Asks each question until the answer is valid, and registers the provider on the way, so
    that its models can be offered.
    """
    with ctx.store.read() as tx:
        providers = Providers(tx).all()
    usual = FirstRoute()
    output.note("A few questions about a first route; Return accepts the value in brackets.")
    output.note(f"Providers: {', '.join(list_provider_choices())}, or your own name")
    # A provider that is there has a key: `init` added it, or a person did.
    real = sorted(name for name in providers if name != SIMULATOR)
    provider, address = _ask_provider(real[0] if real else usual.provider, providers)
    simulated = provider == SIMULATOR
    key = "" if simulated else _ask_key(provider, providers.get(provider))
    models = first_route.prepare_provider(ctx, OPERATOR, provider, api_base=address, key=key)
    model = _ask_model(models, usual.model if simulated else None)
    route = _prompt(
        "Route, the name that clients use as `model`",
        usual.route,
        check=check_route_name,
    )
    suite = _ask_suite(ctx, usual.suite if simulated else None)
    return FirstRoute(
        provider=provider,
        api_base=address,
        key=key,
        model=model,
        route=route,
        suite=suite,
        policy=_choose(
            "Policy", sorted(ctx.policies), usual.policy if simulated else "default"
        ),
        candidate=_ask_candidate(usual.candidate if simulated else NONE) if suite else "",
    )


def _ask_model(models: Sequence[str], usual: str | None) -> str:
    """Asks for the model that serves now. models: the provider's list; may be empty."""
    if models:
        more = len(models) - MODELS_SHOWN
        end = f" and {more} more: `swapgate model discover` lists all" if more > 0 else ""
        output.note(f"Models: {', '.join(models[:MODELS_SHOWN])}{end}")
    return _prompt("Model that serves now", usual)


def _ask_suite(ctx: Context, usual: str | None) -> str:
    """Asks for the suite that decides. usual: None if no shipped suite fits.

    Returns an empty text for none: a shipped suite says nothing about a real feature.
    """
    if usual is not None:
        return _choose("Suite that decides", sorted(ctx.suites.names()), usual)
    own = ctx.suites.own_names()
    if not own:
        output.note(
            "The shipped suites only show how Swapgate works, so this route starts without a "
            "suite. `swapgate docs open how-to/own-suites` makes one of your own questions."
        )
    choice = _choose(
        "Suite that decides (- for none yet)",
        [NONE, *sorted(ctx.suites.names())],
        own[0] if own else NONE,
    )
    return choice.removeprefix(NONE)


def _ask_candidate(usual: str) -> str:
    return _prompt("Candidate to propose now (- for none)", usual).removeprefix(NONE)


def _ask_key(name: str, known: Provider | None) -> str:
    """Asks for the key; returns an empty string if the provider's variable holds it."""
    kind = PROVIDER_KINDS.get(name)
    variable = known.api_key_env if known else kind.key_env if kind else ""
    if variable and os.environ.get(variable):
        output.note(f"Its key is in {variable}.")
        return ""
    return _prompt("Its key (not shown; Return for none)", "", hide=True)


def _ask_provider(usual: str, known: Mapping[str, Provider]) -> tuple[str, str]:
    there = sorted(known)
    while True:
        provider = _prompt("Provider", usual)
        if provider == SIMULATOR:
            output.note(SIMULATOR_HINT)
        elif provider not in (*there, *list_provider_choices()):
            hint = did_you_mean(provider, [*there, *list_provider_choices()])
            output.note(
                f"{provider!r} is your own name for an OpenAI-compatible server; give its "
                f"address{hint}"
            )
        if provider in known:
            output.note(f"It is configured at {known[provider].api_base}.")
            return provider, known[provider].api_base
        address = _prompt("Its address", find_usual_address(provider))
        try:
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
    """default: None if an answer is required. check: raises InputError to ask again."""

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


def _choose(
    question: str,
    names: list[str],
    usual: str,
) -> str:
    default = usual if usual in names else names[0]
    choice = click.Choice(names)
    return str(
        click.prompt(
            question,
            default=default,
            type=choice,
            err=True,
        )
    )


def _print(result: FirstRouteResult, request: FirstRoute, *, written: bool) -> None:
    click.echo(f"created route {request.route}: {request.provider}/{request.model} serves it")
    if result.proposal:
        click.echo(f"proposed {request.provider}/{request.candidate} ({result.proposal})")
    if written:
        click.echo(f"wrote provider {request.provider} and route {request.route} to the file")
    else:
        output.note(
            "`providers` or `routes` of the file has a form that Swapgate cannot edit. The "
            "database has the new provider and route, the file lacks one of them"
        )
    if result.check is not None:
        for finding in result.check.findings:
            if finding.next_step:
                output.note(f"{request.provider}: {finding.found}; {finding.next_step}")
    output.note("next: run `swapgate serve all`, and `swapgate doctor` once it runs")
    if result.proposal:
        output.note(
            "then, with the client key in SWAPGATE_KEY, run "
            f"`swapgate sim traffic {request.route} --until-settled` to simulate callers"
        )
