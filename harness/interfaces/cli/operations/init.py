"""`swapproof init`. It prints keys and a link once, and changes no existing file."""

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
    suggest_first_route,
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


@command(example="swapproof init --guided")
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
    """Set up Swapproof in this folder.

    Writes swapproof.yaml, the secret and the database, and prints an admin key and a client key
    once. Keeps existing files.

    If `.env` or the environment has keys of known providers, the command adds these providers
    after you agree.

    `--from litellm config.yaml` converts LiteLLM's configuration, and reports on each setting.
    """
    from harness.app.set_up import import_config, set_up  # noqa: PLC0415

    if guided and session.json:
        raise click.UsageError("--guided asks questions, so it cannot be used with --json")
    try:
        imported = import_config(*source, session.config) if source else None
    except NothingTaken as error:
        if not session.json:
            output.conversion(error.notes)
        raise
    result = set_up(session.config, takes=lambda keys: _ask_consent(keys, yes=yes))
    if output.documented({"import": imported, **asdict(result)} if imported else result):
        return
    if imported:
        _print_import(imported)
    _print_files(result, imported)
    _print_keys(result)
    _ask_keep_warm(session.config, result)
    if guided:
        guide(session.config)
        return
    missing = "a route" if result.has_providers else "a provider and a route"
    next_step = f"add {missing} to {result.config}, or run `swapproof init --guided`; then run "
    if result.has_routes:
        next_step = "run "
    output.note(f"next: {next_step}`swapproof serve all`, and `swapproof doctor` once it runs")


def _print_files(result: "SetUpResult", imported: "ConfigImport | None") -> None:
    for name in result.created:
        click.echo(f"created {name}")
    for name in result.kept:
        if imported and name == imported.config:
            continue
        click.echo(f"kept {name}: it existed, and did not change")
    for name in result.seeded:
        click.echo(f"added {name} from {result.config}")
    for key in result.found_keys:
        output.note(
            f"found {key.text}, but no provider uses it: `swapproof provider add "
            f"{key.provider}` adds its provider"
        )


def _ask_consent(keys: "Sequence[FoundKey]", *, yes: bool) -> bool:
    """Returns whether the user agrees. Asks only on a terminal."""
    if not (yes or is_terminal()):
        return False
    output.note(f"found {', '.join(key.text for key in keys)}")
    providers = ", ".join(key.provider for key in keys)
    return yes or click.confirm(f"Add their providers ({providers})?", default=True, err=True)


def _print_keys(result: "SetUpResult") -> None:
    if result.admin_key is None:
        output.note("keys exist already: `swapproof key create` creates more")
        return
    output.facts(
        [
            ("admin key", result.admin_key),
            ("client key", result.data_key),
            ("dashboard", result.sign_in_link),
        ]
    )
    output.note("store the keys now: they are not shown again")
    output.note(
        "the dashboard link works once, within an hour; "
        "`swapproof key sign-in-link` prints another"
    )


WARM_SHARE = "1%"


def is_terminal() -> bool:
    return sys.stdin.isatty()


def _ask_keep_warm(config: Path | None, result: "SetUpResult") -> None:
    if not result.not_warm:
        return
    if not is_terminal():
        output.note(
            f"the fallback provider of {output.name_some(result.not_warm)} gets no requests "
            "before a failure. To test it all the time: "
            f"`swapproof route settings {quote(result.not_warm[0])} --keep-warm {WARM_SHARE}`"
        )
        return
    share = parse_share_bps(WARM_SHARE, what="keep_warm")
    question = (
        f"Send {WARM_SHARE} of {{}}'s callers to its fallback at another provider, to test "
        "it all the time?"
    )
    chosen_routes = [
        name
        for name in result.not_warm
        if click.confirm(question.format(name), default=True, err=True)
    ]
    installation = open_installation(config)
    try:
        for name in chosen_routes:
            routes.change_settings(
                installation.context,
                OPERATOR,
                name,
                lambda settings: replace(settings, keep_warm_bps=share),
            )
            place = f"routes.{name} in {result.config}"
            output.note(f"also write `keep_warm: {WARM_SHARE}` under {place}")
    finally:
        installation.close()


def _print_import(result: "ConfigImport") -> None:
    conversion = result.conversion
    click.echo(f"created {result.config} from {result.source}")
    output.conversion(conversion.notes)
    if conversion.variables:
        output.note(f"before `swapproof serve all`, set {', '.join(conversion.variables)}")
    if "routes" not in conversion.config:
        output.note("no route was taken over: see the reasons above")


NONE = "-"
MODELS_SHOWN = 20
SIMULATOR_HINT = "the simulator needs no key: start it with `swapproof sim` in another terminal"


def guide(config: Path | None) -> None:
    """Asks for a first route, creates it, and writes it into the file. Raises InputError if a
    route exists.
    """
    from harness.app.set_up import write_first_route  # noqa: PLC0415 - `--help` stays quick

    installation = open_installation(config)
    try:
        ctx = installation.context
        if names := sorted(routes.load_table(ctx).routes):
            raise InputError(
                f"route {names[0]} exists already, and --guided creates only the first route: "
                "`swapproof route create` creates more"
            )
        request = _ask_first_route(ctx)
        result = first_route.create_first_route(ctx, OPERATOR, request)
        with ctx.store.read() as tx:
            provider = Providers(tx).all()[request.provider]
    finally:
        installation.close()
    is_written = write_first_route(config, request, provider)
    _print_result(result, request, is_written=is_written)


def _ask_first_route(ctx: Context) -> FirstRoute:
    """Asks each question until the answer is valid. Registers the provider before it asks for
    the model, so that it can list the provider's models.
    """
    with ctx.store.read() as tx:
        providers = Providers(tx).all()
    output.note("A few questions about a first route; Return accepts the value in brackets.")
    output.note(f"Providers: {', '.join(list_provider_choices())}, or your own name")
    # A configured provider has a key, because `init` or a person added it.
    provider_names = sorted(name for name in providers if name != SIMULATOR)
    provider, address = _ask_provider(
        provider_names[0] if provider_names else SIMULATOR, providers
    )
    suggestion = suggest_first_route(provider, ctx.suites.list_own_names())
    key = "" if provider == SIMULATOR else _ask_key(provider, providers.get(provider))
    models = first_route.prepare_provider(ctx, OPERATOR, provider, api_base=address, key=key)
    model = _ask_model(models, suggestion.model or None)
    route = _prompt(
        "Route, the name that clients use as `model`",
        suggestion.route,
        check=check_route_name,
    )
    suite = _ask_suite(ctx, suggestion)
    return FirstRoute(
        provider=provider,
        api_base=address,
        key=key,
        model=model,
        route=route,
        suite=suite,
        policy=_choose("Policy", sorted(ctx.policies), suggestion.policy),
        candidate=_ask_candidate(suggestion.candidate or NONE) if suite else "",
    )


def _ask_model(models: Sequence[str], suggestion: str | None) -> str:
    """Asks for the model that serves now.

    Args:
        models: the provider's list; may be empty.
    """
    if models:
        hidden_count = len(models) - MODELS_SHOWN
        end = (
            f" and {hidden_count} more: `swapproof model discover` lists all"
            if hidden_count > 0
            else ""
        )
        output.note(f"Models: {', '.join(models[:MODELS_SHOWN])}{end}")
    return _prompt("Model that serves now", suggestion)


def _ask_suite(ctx: Context, suggestion: FirstRoute) -> str:
    """Asks for the suite that decides. Returns an empty text for a route without a suite: a
    shipped suite does not measure a real feature.
    """
    if suggestion.provider == SIMULATOR:
        return _choose("Suite that decides", sorted(ctx.suites.names()), suggestion.suite)
    if not suggestion.suite:
        output.note(
            "The shipped suites only show how Swapproof works, so this route starts without a "
            "suite. `swapproof docs open how-to/own-suites` makes one of your own questions."
        )
    choice = _choose(
        "Suite that decides (- for none yet)",
        [NONE, *sorted(ctx.suites.names())],
        suggestion.suite or NONE,
    )
    return choice.removeprefix(NONE)


def _ask_candidate(suggestion: str) -> str:
    return _prompt("Candidate to propose now (- for none)", suggestion).removeprefix(NONE)


def _ask_key(name: str, configured: Provider | None) -> str:
    """Asks for the key; returns an empty string if the provider's variable holds it."""
    kind = PROVIDER_KINDS.get(name)
    variable = configured.api_key_env if configured else kind.key_env if kind else ""
    if variable and os.environ.get(variable):
        output.note(f"Its key is in {variable}.")
        return ""
    return _prompt("Its key (not shown; Return for none)", "", hide=True)


def _ask_provider(suggestion: str, configured: Mapping[str, Provider]) -> tuple[str, str]:
    names = sorted(configured)
    while True:
        provider = _prompt("Provider", suggestion)
        if provider == SIMULATOR:
            output.note(SIMULATOR_HINT)
        elif provider not in (*names, *list_provider_choices()):
            hint = did_you_mean(provider, [*names, *list_provider_choices()])
            output.note(
                f"{provider!r} is your own name for an OpenAI-compatible server; give its "
                f"address{hint}"
            )
        if provider in configured:
            output.note(f"It is configured at {configured[provider].api_base}.")
            return provider, configured[provider].api_base
        address = _prompt("Its address", find_usual_address(provider))
        try:
            default_provider(provider, names, api_base=address)
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
    """Asks a person at the terminal.

    Args:
        default: None if an answer is required.
        check: raises InputError to ask again.
    """

    def check_answer(answer: str) -> str:
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
            value_proc=check_answer,
            err=True,
        )
    )


def _choose(
    question: str,
    names: list[str],
    suggestion: str,
) -> str:
    default = suggestion if suggestion in names else names[0]
    choice = click.Choice(names)
    return str(
        click.prompt(
            question,
            default=default,
            type=choice,
            err=True,
        )
    )


def _print_result(result: FirstRouteResult, request: FirstRoute, *, is_written: bool) -> None:
    click.echo(f"created route {request.route}: {request.provider}/{request.model} serves it")
    if result.proposal:
        click.echo(f"proposed {request.provider}/{request.candidate} ({result.proposal})")
    if is_written:
        click.echo(f"wrote provider {request.provider} and route {request.route} to the file")
    else:
        output.note(
            "`providers` or `routes` of the file has a form that Swapproof cannot edit. The "
            "database has the new provider and route, the file lacks one of them"
        )
    if result.check is not None:
        for finding in result.check.findings:
            if finding.next_step:
                output.note(f"{request.provider}: {finding.found}; {finding.next_step}")
    output.note("next: run `swapproof serve all`, and `swapproof doctor` once it runs")
    if result.proposal:
        output.note(
            "then, with the client key in SWAPPROOF_KEY, run "
            f"`swapproof sim traffic {request.route} --until-settled` to simulate callers"
        )
