"""Where people sign in for a provider, and as which application (`oauth:`)."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from harness.domain.errors import InputError
from harness.domain.providers.oauth_kinds import OAuthOverrides, check_oauth_url


class OAuthEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    client_id: str | None = Field(None, description="of your application at the vendor")
    device_url: str | None = Field(None, description="gives the codes")
    token_url: str | None = Field(None, description="gives tokens, and renews them")
    poll_url: str | None = Field(None, description="of openai_codex: whether a person is done")
    verification_url: str | None = Field(None, description="where the person types the code")
    redirect_uri: str | None = None
    exchange_url: str | None = Field(None, description="a short-lived token for the account's")
    scope: str | None = None
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
