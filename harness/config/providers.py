"""The file's `catalogue` section becomes changes to what is known of models, and its `oauth`
section other addresses for signing in to vendors' accounts.
"""

from datetime import date

from pydantic import BaseModel, ConfigDict, Field, field_validator

from harness.config.source_locations import Document
from harness.domain.errors import ConfigError, InputError
from harness.domain.providers.catalogue import ABILITIES, CatalogueChange
from harness.domain.providers.kinds import PROVIDER_KINDS
from harness.domain.providers.oauth_kinds import OAuthOverrides, check_oauth_url
from harness.domain.routing.target import Price


class OAuthEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    client_id: str | None = Field(None, description="of your application at the vendor")
    device_url: str | None = Field(None, description="gives the codes")
    token_url: str | None = Field(None, description="gives tokens, and renews them")
    poll_url: str | None = Field(None, description="of openai_codex: whether a person is done")
    verification_url: str | None = Field(None, description="where the person types the code")
    redirect_uri: str | None = None  # where the vendor sends the person back
    exchange_url: str | None = Field(None, description="a short-lived token for the account's")
    scope: str | None = None  # what the token is asked for
    headers: dict[str, str] | None = Field(None, description="with each request to these")

    @field_validator("device_url", "token_url", "poll_url", "exchange_url")
    @classmethod
    def _safe(cls, value: str | None) -> str | None:
        try:
            return check_oauth_url(value) if value else value
        except InputError as error:
            raise ValueError(str(error)) from None

    def change(self) -> OAuthOverrides:
        return OAuthOverrides(**{name: getattr(self, name) for name in type(self).model_fields})


_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class CatalogueItem(BaseModel):
    """Corrects the catalogue for one model; a field that is left out stays as the catalogue has
    it.
    """

    model_config = _STRICT
    price: Price | None = None  # of its tokens
    context_window: int | None = Field(None, description="tokens")
    capabilities: dict[str, bool] = Field({}, description=f"of {', '.join(ABILITIES)}")
    end_date: date | None = Field(None, description="the day on which it may be gone")
    family: str | None = Field(None, description="models of one family are its versions")

    @field_validator("capabilities")
    @classmethod
    def _known(cls, value: dict[str, bool]) -> dict[str, bool]:
        for name in value:
            if name not in ABILITIES:
                raise ValueError(f"{name!r} is none of {', '.join(ABILITIES)}")
        return value


def catalogue_changes(
    items: dict[str, CatalogueItem], document: Document
) -> tuple[CatalogueChange, ...]:
    """Reads the file's changes to the catalogue. items: by `kind/model`. Raises ConfigError for
    a name whose kind there is not.
    """
    changes = []
    for name, item in items.items():
        kind, _, model = name.partition("/")
        if kind not in PROVIDER_KINDS or not model:
            raise ConfigError(
                f"{document.place(('catalogue', name))}: catalogue.{name}: write KIND/MODEL, "
                f"with a kind of {', '.join(PROVIDER_KINDS)}"
            )
        said = {field: getattr(item, field) for field in CatalogueItem.model_fields}
        changes.append(CatalogueChange(kind, model, **said))
    return tuple(changes)
