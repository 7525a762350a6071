"""`swapproof model`."""

from collections.abc import Iterable, Mapping, Sequence

import click

from harness.frame.formatting import format_milliseconds
from harness.frame.pagination import INVALID_ROWS_HINT, PageRequest
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    PAGE,
    FiniteRange,
    arg,
    command,
    opt,
    taken_from,
)
from harness.interfaces.cli.frame.operation_command import add_commands
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.routing.route_options import (
    TargetOptions,
    requested_target,
)
from harness.operations import queries
from harness.providers.models.catalogue import CatalogueEntry
from harness.providers.models.model_ends import KnownEnd, describe_end
from harness.providers.models.model_match import NO_OFFER
from harness.providers.registry import (
    named_models,
    provider_secrets,
    registered_providers,
    targets,
)
from harness.providers.registry.end_facts import load_facts
from harness.providers.registry.named_models import NameReading
from harness.providers.registry.operations import PRICES
from harness.providers.target import Price, Provider, Target
from harness.providers.target_price import describe_missing
from harness.routing.context import RoutingContext
from harness.routing.control import deprecations
from harness.routing.control.deprecations import Deprecation


def show_entries(
    entries: Sequence[tuple[str, CatalogueEntry]],
    ends: Mapping[str, KnownEnd],
    *,
    empty: str,
) -> None:
    output.listing(
        entries,
        lambda entry_pair: _build_entry_cells(*entry_pair, ends[entry_pair[0]]),
        empty=empty,
        as_document=lambda rows: [
            {"name": name, **_build_entry_json(entry), "end": ends[name]}
            for name, entry in rows
        ],
    )


def _build_entry_cells(name: str, entry: CatalogueEntry, end: KnownEnd) -> dict[str, object]:
    return {
        "MODEL": name,
        **_build_price_cells(entry.price),
        "WINDOW": entry.context_window or "unknown",
        "CAN": " ".join(sorted(entry.has)) or "unknown",
        "ENDS": _describe_known_end(end),
    }


def _build_price_cells(price: Price | None) -> dict[str, object]:
    return {
        "INPUT $/MTOK": f"{price.input_usd_per_mtok:g}" if price else "unknown",
        "OUTPUT $/MTOK": f"{price.output_usd_per_mtok:g}" if price else "unknown",
    }


def _build_entry_json(entry: CatalogueEntry) -> dict[str, object]:
    return {
        **output.pick(entry, "family", "context_window", "has", "lacks"),
        "price": entry.price.as_json() if entry.price else None,
    }


CONFLICT_CODE = 6


@click.group()
def model() -> None:
    """Targets: models at providers, with prices."""


add_commands(model, PRICES)


@command(model, "list", example="swapproof model list")
def list_models(
    session: Session,
    *,
    shows_all: bool = opt("List every model that the configured providers offer.", "--all"),
    page_request: PageRequest = PAGE,
) -> None:
    """List the targets, their prices and the routes that use them."""
    if shows_all:
        offers = named_models.list_configured_offers(session.context_with_providers)
        offered = named_models.list_offered_targets(offers)
        ends = _load_ends(session.context, offered.values())
        show_entries(
            offers, {name: ends[target.id] for name, target in offered.items()}, empty=NO_OFFER
        )
        return
    ctx = session.context
    target_page = ctx.store.lists.targets(page_request)
    with ctx.store.read() as tx:
        prices = {
            target.id: targets.load_price(ctx, tx, target).price for target in target_page
        }
    users, invalid = queries.list_route_users(ctx, lambda route: route.targets)
    for fault in invalid:
        output.note(f"{fault.name}: {INVALID_ROWS_HINT}")
    judges = {judge.id for judge in ctx.judges.values()}
    used_targets = [target for target in target_page if target.id in users.keys() | judges]
    endings = (
        deprecations.list_deprecations(ctx)
        if session.json
        else deprecations.list_endings(ctx, used_targets)
    )
    ends = _load_ends(ctx, target_page)
    endings_by_target = {ending.target: ending for ending in endings}
    output.listing(
        target_page,
        lambda target: {
            "TARGET": target.name,
            "ID": target.id,
            **_build_price_cells(prices[target.id]),
            "ENDS": _describe_end(endings_by_target.get(target.id), ends[target.id]),
            "ROUTES": output.name_some(users.get(target.id, ())),
        },
        empty="no targets yet: `swapproof model add PROVIDER/MODEL` adds one",
        as_document=lambda rows: [
            {
                "target": target,
                "price": prices[target.id],
                "routes": sorted(users.get(target.id, ())),
                "ending": endings_by_target.get(target.id),
                "end": ends[target.id],
            }
            for target in rows
        ],
    )
    unpriced = [target.name for target in target_page if prices[target.id] is None]
    if unpriced and not session.json:
        output.note(describe_missing(*unpriced))


def _load_ends(ctx: RoutingContext, targets: Iterable[Target]) -> Mapping[str, KnownEnd]:
    """Loads what is known about the ends of targets' models, by the target's id."""
    targets = list(targets)
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        facts = load_facts(ctx, tx, targets)
    return {target.id: facts.report(target, now).known for target in targets}


def _describe_known_end(end: KnownEnd) -> str:
    return end.day.isoformat() if end.day else end.state.value.replace("_", " ")


def _describe_end(ending: Deprecation | None, end: KnownEnd) -> str:
    if ending is None:
        return _describe_known_end(end)
    successor_text = f", then {ending.successor.name}" if ending.successor else ""
    unlisted = "not listed since " if ending.unlisted else ""
    day = ending.end_date.isoformat() if ending.end_date else "deprecated, day unknown"
    return f"{unlisted}{day}{successor_text}"


@command(model, example="swapproof model add openai/gpt-6-luna --param reasoning_effort=low")
def add(
    session: Session,
    name: str = arg("PROVIDER/MODEL"),
    *,
    settings: TargetOptions = taken_from(TargetOptions),
    api_base: str = opt(
        "API address of a new provider.",
        metavar="URL",
        default="",
    ),
    discovers: bool = opt(
        "Ask a gateway, self-hosted server or simulator for its models. [default: discover]",
        "--discover/--no-discover",
        default=True,
    ),
) -> None:
    """Register a target. Its id is a hash of its content and settings.

    If PROVIDER is a known kind, such as `openrouter`, the command adds a missing provider.
    """
    seed = requested_target(name, settings)
    registered = registered_providers.register_with_provider(
        session.context_with_providers,
        session.actor,
        seed,
        api_base=api_base,
    )
    target = registered.target
    output.record(target, [("target", target.name), ("id", target.id)])
    has_key = bool(provider_secrets.keys_of_provider(session.context, registered.provider))
    lacks_key = registered.needs_key and not has_key
    if registered.added:
        output.note(_describe_new_provider(registered.provider, lacks_key=lacks_key))
    if discovers and not lacks_key:
        unlisted = named_models.describe_unlisted(session.context, session.actor, target)
        if unlisted:
            output.note(unlisted)


@command(model, example="swapproof model discover openai")
def discover(session: Session, provider: str = arg("PROVIDER")) -> None:
    """Read and store the models that a provider lists at its /models.

    From then on, `model match` and `model list --all` know these models.
    """
    ctx = session.context_with_providers
    listing = named_models.discover_models(ctx, session.actor, provider)
    output.listing(
        listing.models,
        lambda model: {
            "MODEL": model.model,
            **_build_price_cells(model.price),
            "WINDOW": model.context_window or "unknown",
        },
        empty=f"{provider} lists no models",
        as_document=lambda _: listing,
    )
    if listing.left_out and not session.json:
        output.note(f"left out {listing.left_out} entries that do not name a model")


def _describe_new_provider(provider: Provider, *, lacks_key: bool) -> str:
    text = f"added provider {provider.name} at {provider.api_base}"
    if not lacks_key:
        return text
    variable = provider.api_key_env
    return (
        f"{text}; it needs a key, but {variable} is not set: run `swapproof provider key set "
        f"{provider.name}`, or put {variable} into `.env` and send the router a SIGHUP"
    )


@command(model, "resolve", example="swapproof model resolve gpt-6-luna")
def resolve_name(session: Session, name: str) -> int:
    """Show, rule by rule, the provider that a model name resolves to; exit code 1 if none."""
    reading = _explain_name(session, name)
    if not output.documented(reading):
        output.table(
            ["RULE", "OUTCOME", "WHY"],
            [[rule.rule.value, rule.outcome.value, rule.reason] for rule in reading.rules],
            empty="",
        )
        _show_meaning(reading)
    return 0 if reading.provider else 1


@command(model, "search", example="swapproof model search gpt-6-sol")
def search_models(session: Session, words: tuple[str, ...] = arg(required=True)) -> None:
    """Find models of all provider kinds in the catalogue, by parts of their names."""
    ctx = session.context
    entries = named_models.search_catalogue(ctx, words)
    today = ctx.clock.now().date()
    show_entries(
        entries,
        {
            name: describe_end(ctx.catalogue.find_end(entry.kind, entry.model, today))
            for name, entry in entries
        },
        empty="no such model; `catalogue:` in swapproof.yaml adds one",
    )


@command(model, "match", example='swapproof model match "gemini flash"')
def match_name(session: Session, name: str) -> int:
    """Find the model for an approximate name: "gemini flash", "opus 4.7".

    Exit code 1 if no model fits, 6 if several families fit equally well.
    """
    reading = _explain_name(session, name)
    if not output.documented(reading):
        _show_meaning(reading)
    return 0 if reading.found else CONFLICT_CODE if reading.candidates else 1


def _explain_name(session: Session, name: str) -> NameReading:
    standing = session.installation.standing_switches
    return named_models.explain_name(session.context_with_providers, name, configured=standing)


def _show_meaning(reading: NameReading) -> None:
    count = len(reading.candidates)
    for name in [reading.found.name] if reading.found else reading.candidates:
        click.echo(name)
    reason = f"{count} models fit equally well: name one" if count else reading.reason
    output.note(f"{reading.name}: {reason}")
    if reading.unlisted:
        output.note(reading.unlisted)


@command(model, example="swapproof model probe openai/gpt-6-luna")
def probe(
    session: Session,
    name: str = arg("TARGET"),
    *,
    timeout_s: float = opt(
        "Seconds to wait for the answer.",
        "--timeout",
        type=FiniteRange(min=0, min_open=True),
        default=60.0,
    ),
) -> int:
    """Send a short real chat request to a target; exit code 1 if it fails.

    Also tries a local server's Responses and Messages endpoints, and an embedding if the server
    refuses a chat. TARGET is an id or a model's name, registered or not.
    """
    from harness.app.doctor import provider_requests  # noqa: PLC0415 - `--help` stays quick

    with session.context_with_providers.store.read() as tx:
        target = named_models.find_model(session.context_with_providers, tx, name)
        provider = targets.provider_of(tx, target)
    allowed_addresses = session.context.allow_addresses
    provider = provider_secrets.decrypt_headers(provider, session.context.cipher)
    keys = provider_secrets.keys_of_provider(session.context, provider)
    first_key = keys[0] if keys else None
    result = provider_requests.probe_target(
        provider,
        target,
        key=first_key,
        timeout_s=timeout_s,
        allowed=allowed_addresses,
    )
    output.record(
        result,
        [
            ("target", result.target),
            ("result", "answered" if result.ok else f"failed: {result.error}"),
            ("latency", format_milliseconds(result.latency_ms)),
            ("served model", result.served_model or None),
            ("answer", result.answer or None),
            *((f"own {name}", gap or "fully supported") for name, gap in result.native.items()),
            ("declare", result.declare or None),
        ],
    )
    return 0 if result.ok else 1
