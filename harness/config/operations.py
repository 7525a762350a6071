"""The file's alert sinks are checked: one of an apprise URL, its variable or a signed webhook,
and no internal address.

The file's `capture` section becomes redaction rules: the user's own, and built-in ones left
out.
"""

from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from harness.config.source_locations import Document
from harness.domain.errors import ConfigError, InputError
from harness.domain.privacy.capture import CaptureSettings
from harness.domain.privacy.redaction import RedactionRule, Redactor
from harness.domain.providers.api_base_rules import is_internal_host
from harness.domain.settings import AlertSink

ONE_OF: Final = ("url", "url_env", "webhook")


def alert_sink(number: int, **entry: str) -> AlertSink:
    """Checks one sink. number: its place in the list, for its name. Raises InputError; names no
    URL.
    """
    given = [name for name in ONE_OF if entry[name]]
    if len(given) != 1:
        raise InputError("give one of `url`, `url_env` and `webhook`")
    url = entry["url"] or entry["webhook"]
    scheme = urlsplit(url).scheme.lower() if url else ""
    if entry["webhook"]:
        if scheme not in ("http", "https"):
            raise InputError("`webhook` is an http or https URL")
        if not entry["secret_env"]:
            raise InputError("a webhook needs `secret_env`: it is signed with that secret")
    elif entry["secret_env"]:
        raise InputError("`secret_env` belongs to a webhook")
    if url and not scheme:
        raise InputError("`url` is no URL of apprise, such as slack://… or mailto://…")
    if url and is_internal_host(urlsplit(url).hostname or ""):
        raise InputError("the address is link-local, or a cloud's metadata service")
    kind = "webhook" if entry["webhook"] else scheme or "sink"
    return AlertSink(**{**entry, "name": entry["name"] or f"{kind}-{number}"})


_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class RedactionEntry(BaseModel):
    model_config = _STRICT
    name: str = Field(description="lower case; the placeholder is [NAME_1]")
    pattern: str = Field(description="a regular expression of Python")
    replacement: str = Field("", description="instead of the placeholder")


class CaptureEntry(BaseModel):
    """Redaction: the user's rules, and which of ours are left out."""

    model_config = _STRICT
    redact: list[RedactionEntry] = []  # rules of your own: a name, a pattern, what replaces it
    keep: list[str] = Field([], description="built-in rules that are not used, such as phone")


def capture_settings(entry: CaptureEntry, document: Document) -> CaptureSettings:
    """Builds the settings of captures from the file's entry. Raises ConfigError with the place
    of what makes no sense.
    """
    rules: list[RedactionRule] = []
    for number, redaction_entry in enumerate(entry.redact):
        try:
            rules.append(
                RedactionRule(
                    redaction_entry.name, redaction_entry.pattern, redaction_entry.replacement
                )
            )
        except InputError as error:
            path = ("capture", "redact", number)
            raise ConfigError(
                f"{document.place(path)}: capture.redact.{number}: {error}"
            ) from None
    try:
        Redactor(tuple(rules), tuple(entry.keep))
    except InputError as error:
        raise ConfigError(f"{document.place(('capture',))}: capture: {error}") from None
    return CaptureSettings(tuple(rules), tuple(entry.keep))
