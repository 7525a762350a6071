"""The file's `capture` section becomes redaction rules: the user's own, and built-in ones left
out.
"""

from pydantic import BaseModel, ConfigDict, Field

from harness.config.source_locations import Document
from harness.domain.errors import ConfigError, InputError
from harness.domain.privacy.capture import CaptureSettings
from harness.domain.privacy.redaction import RedactionRule, Redactor

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
