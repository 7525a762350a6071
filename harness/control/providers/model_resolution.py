"""A model's name, resolved or matched among the providers that there are now."""

from collections.abc import Sequence

from harness.control.context import Context
from harness.control.providers import provider_secrets
from harness.control.providers.fuzzy_match import Rapidfuzz
from harness.domain.providers.model_match import ModelMatch, list_offers
from harness.domain.providers.model_match import match_model as match
from harness.domain.providers.name_resolution import Resolution, resolve_model_name
from harness.domain.providers.oauth_tokens import TOKEN_KEY_NAME
from harness.domain.routing.kill_switch import KillSwitch, active_switches


def resolve_model(
    ctx: Context, name: str, *, standing: Sequence[KillSwitch] = ()
) -> Resolution:
    """standing: switches of the environment and the file, beside the stored ones."""
    with ctx.store.read() as tx:
        providers = tx.providers.all()
        switches = (*standing, *tx.switches.not_lifted())
        tokens = {
            e.provider
            for e in provider_secrets.list_live_credentials(ctx, tx)
            if e.name == TOKEN_KEY_NAME
        }
        signed_in = tokens & {each.provider for each in tx.sign_ins.all()}
    # A name belongs to no route: only a switch over all of them says anything about it.
    for_all = [
        each for each in active_switches(switches, ctx.clock.now()) if each.route is None
    ]
    return resolve_model_name(
        name,
        providers,
        catalogue=ctx.catalogue,
        forced=for_all[0].force if for_all else None,
        signed_in=signed_in,
    )


def match_model(ctx: Context, name: str) -> ModelMatch:
    """The model that somebody means by a name of theirs, among those that providers offer."""
    with ctx.store.read() as tx:
        there = list_offers(tx.providers.all(), ctx.catalogue, tx.routing.targets().values())
    return match(name, there, likeness=Rapidfuzz(), today=ctx.clock.now().date())
