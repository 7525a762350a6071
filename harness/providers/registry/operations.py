"""The simple operations on providers, their keys and their models.

The wizards that add a provider or a key are not here: they read secrets, and then check the
provider.
"""

from pathlib import Path
from typing import Any, Final

from harness.frame.configuration.setting import Range
from harness.frame.formatting import format_timestamp
from harness.frame.operation import (
    TEXT_LENGTH,
    DialogTexts,
    FinishedOperation,
    Listing,
    Operation,
    OperationGroup,
    Parameter,
    by_row,
)
from harness.frame.people.access import Role
from harness.providers.registry import credentials, registered_providers, sign_in
from harness.providers.registry.credentials import KeyVariable, ProviderCredentials
from harness.providers.registry.registered_providers import ProviderSummary


def _provider_cells(row: ProviderSummary) -> dict[str, object]:
    return {
        "PROVIDER": row.name,
        "KIND": row.kind,
        "GROUP": row.group,
        "API BASE": row.api_base,
        "ROUTES": ", ".join(row.routes),
    }


def _describe_removal(_: Any, provider: str) -> list[str]:
    effect = (
        f"Within 2 s, every router removes **{provider}** and its stored keys. Swapproof "
        "refuses this while a route, a proposal, a shadow or a judge uses the provider."
    )
    return [effect]


def _describe_price_effect(_: Any, model: str) -> list[str]:
    effect = (
        f"Within 2 s, every router counts the cost of **{model}** with this price. Budgets, "
        "guardrails and forecasts use it. Costs that are recorded already do not change."
    )
    return [effect]


_USD_PER_MTOK: Final = Range(0, 1_000_000)
# The one way to end a missing price (`harness.providers.target_price`), and to correct a price.
PRICES: Final = OperationGroup(
    command="model",
    words="Prices of models.",
    operations=(
        Operation(
            use_case=registered_providers.set_price,
            role=Role.ADMIN,
            words="Set the price of a model, in US dollars per million tokens of input and "
            "output.\n\n"
            "Budgets, guardrails and forecasts use the price. Swapproof knows the prices of "
            "the catalogue and of a provider's list without this command.",
            command="price PROVIDER/MODEL INPUT OUTPUT",
            example="swapproof model price openai/gpt-6-luna 0.10 0.50",
            endpoint="POST /prices",
            body_text="A model's price, in US dollars per million tokens.",
            parameters={
                "model": Parameter(
                    meaning="`provider/model`, or a target's id.", length=TEXT_LENGTH
                ),
                "input_usd_per_mtok": Parameter(
                    meaning="For a million tokens of input.",
                    label="Input, US dollars per million tokens",
                    range=_USD_PER_MTOK,
                ),
                "output_usd_per_mtok": Parameter(
                    meaning="For a million tokens of output.",
                    label="Output, US dollars per million tokens",
                    range=_USD_PER_MTOK,
                ),
                "cached_input_usd_per_mtok": Parameter(
                    meaning="For a million tokens of cached input. [default: as input]",
                    label="Cached input (optional; empty: as input)",
                    range=_USD_PER_MTOK,
                    flags=("--cached-input",),
                    metavar="USD",
                ),
            },
            done=lambda priced: f"{priced.result.target} costs {priced.result.text}",
            needs_providers=True,
            dialog=DialogTexts(
                title="Set the price",
                button="Set the price",
                opener=lambda model: f"Set the price of {model}",
                icon="payments",
                effect=_describe_price_effect,
            ),
        ),
    ),
)
SET_PRICE: Final = PRICES.operations[0]


# The command that removes a provider is not here, because it also reads the configuration file.
PROVIDERS: Final = OperationGroup(
    command="provider",
    words="Providers: where models are called, and their keys.",
    operations=(
        Operation(
            use_case=registered_providers.list_providers,
            role=Role.VIEWER,
            words="List the providers, and the routes that use them.",
            command="list",
            example="swapproof provider list",
            endpoint="GET /providers",
            needs_providers=True,
            listing=Listing(
                by_row(_provider_cells),
                empty="no provider yet: `swapproof provider add openai` adds one",
            ),
        ),
        Operation(
            use_case=registered_providers.remove_provider,
            role=Role.ADMIN,
            words="Remove a provider.",
            endpoint="DELETE /providers/{provider}",
            status=204,
            done=lambda removed: f"removed {removed.inputs['name']}",
            dialog=DialogTexts(
                title="Remove the provider",
                button="Remove it",
                opener=lambda _: "Remove",
                icon="delete",
                effect=_describe_removal,
                typed_name=lambda provider: provider,
            ),
        ),
    ),
)


def _key_cells(row: ProviderCredentials) -> dict[str, object]:
    return {
        "PROVIDER": row.name,
        "KIND": row.kind,
        "KEY": row.source or ("missing" if row.lacks_key else "none needed"),
        "KEYS": row.keys,
        "STORED": ", ".join(_describe_stored_keys(row)),
        "ENVIRONMENT": ", ".join(map(_describe_variable, row.variables)),
        "API BASE": row.api_base,
    }


def _describe_stored_keys(row: ProviderCredentials) -> list[str]:
    return [
        f"{entry.name} (until {format_timestamp(entry.expires_at)})"
        if entry.expires_at
        else entry.name
        for entry in row.stored
    ]


def _describe_variable(key: KeyVariable) -> str:
    return f"{key.variable} ({Path(key.file).name})" if key.file else key.variable


def _advise_after_removal(removed: FinishedOperation[ProviderCredentials]) -> str:
    if removed.result.variables:
        return credentials.describe_variables(removed.result)
    if removed.result.lacks_key:
        return f"{removed.inputs['name']} has no key now, so routes use their next target"
    return ""


PROVIDER_KEYS: Final = OperationGroup(
    command="provider key",
    words="Keys of providers: stored encrypted, never shown.",
    operations=(
        Operation(
            use_case=credentials.list_credentials,
            role=Role.VIEWER,
            words="List the providers and their keys, stored or in this shell's environment.",
            command="list",
            example="swapproof provider key list",
            endpoint="GET /credentials/providers",
            needs_providers=True,
            listing=Listing(
                by_row(_key_cells),
                empty="no provider yet: `swapproof provider key set openai` adds one with its "
                "key",
            ),
        ),
        # No endpoint here, because the API reads the key's name from the query
        # (`interfaces.api`).
        Operation(
            use_case=credentials.remove_credential,
            role=Role.ADMIN,
            words="Delete a provider's stored keys. Without a key, its targets get no requests."
            "\n\n"
            "A key in `.env` or in the environment stays; the command shows where it is.",
            command="remove PROVIDER",
            example="swapproof provider key remove openai",
            parameters={"key": Parameter(meaning="Only this stored key. [default: all]")},
            done=lambda removed: f"{removed.inputs['name']}: removed",
            advice=_advise_after_removal,
        ),
        Operation(
            use_case=sign_in.sign_out,
            role=Role.ADMIN,
            words="Delete a provider's sign-in tokens. Without another key, its targets get no "
            "requests.\n\n"
            "Then revoke the application on the vendor's page.",
            command="logout PROVIDER",
            example="swapproof provider key logout github_copilot",
            document=lambda signed_out: {
                "provider": signed_out.inputs["name"],
                "signed_in": False,
            },
            done=lambda signed_out: f"{signed_out.inputs['name']}: signed out",
        ),
    ),
)
