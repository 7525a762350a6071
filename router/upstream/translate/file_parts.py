"""Writes the files of a chat as the vendors of translated kinds read them.

OpenAI takes a file of any media type as a data URL. Claude takes documents that are PDF, and
reads other files only as text: https://platform.claude.com/docs/en/build-with-claude/files
"""

import base64
import binascii
from collections.abc import Collection, Mapping
from mimetypes import guess_type
from typing import Any, Final, NamedTuple

from router.frame.failure import Untranslatable

Json = dict[str, Any]
PDF: Final = "application/pdf"
# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_DocumentBlock.html
CONVERSE_DOCUMENTS: Final = frozenset(
    {
        PDF,
        "application/msword",
        "application/vnd.ms-excel",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "text/csv",
        "text/html",
        "text/markdown",
        "text/plain",
    }
)
_SCHEME: Final = "data:"
_BASE64: Final = ";base64"
# The first bytes of a PDF, in base64.
_PDF_START: Final = "JVBERi0"
_UNKNOWN_TYPES: Final = frozenset({"", "application/octet-stream", "binary/octet-stream"})
_TEXT_TYPES: Final = frozenset(
    {
        "application/graphql",
        "application/javascript",
        "application/json",
        "application/jsonl",
        "application/sql",
        "application/toml",
        "application/x-javascript",
        "application/x-ndjson",
        "application/x-python",
        "application/x-sh",
        "application/x-yaml",
        "application/xml",
        "application/yaml",
    }
)


class DataUrl(NamedTuple):
    """A file in base64. media_type: in lower case; empty if the URL names none."""

    media_type: str
    data: str


def is_file_url(url: object) -> bool:
    """Returns whether a data URL of a picture contains another type of file, such as PDF."""
    data_url = _read_data_url(url) if isinstance(url, str) else None
    if data_url is None:
        return False
    if data_url.media_type in _UNKNOWN_TYPES:
        return data_url.data.startswith(_PDF_START)
    return not data_url.media_type.startswith("image/")


def write_file(
    file: Mapping[str, object],
    place: str,
    documents: Collection[str],
) -> Json:
    """Returns the part of a chat's content for a file, as litellm reads it.

    Args:
        file: `file_data`, an approved URL, and perhaps `filename`.
        place: the part's path, for the error.
        documents: the media types that the vendor takes; empty for any.

    Another text becomes a text with its name. Raises Untranslatable for other files.
    """
    url = str(file["file_data"])
    name = file.get("filename")
    file_name = name if isinstance(name, str) else ""
    data_url = _read_data_url(url)
    if data_url is None:
        # litellm reads the URL of a document here.
        return {"type": "file", "file": {"file_id": url}}
    media_type = _find_media_type(data_url, file_name)
    typed_url = f"data:{media_type};base64,{data_url.data}"
    if not documents or media_type in documents:
        return {"type": "file", "file": {"file_data": typed_url}}
    if media_type.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": typed_url}}
    if not _is_text(media_type):
        why = f"`{place}.file`: the provider takes no {media_type[:80]!r}; send PDF or text"
        raise Untranslatable(why, place)
    text = _decode_text(data_url.data, place)
    return {"type": "text", "text": f"{file_name or 'document'}:\n\n{text}"}


def _read_data_url(url: str) -> DataUrl | None:
    """Reads a data URL in base64; None for another URL."""
    # A regular expression with the same parts needed minutes for a URL of 1 MB without comma.
    head, comma, data = url.partition(",")
    if not (comma and head.startswith(_SCHEME) and head.endswith(_BASE64)):
        return None
    media_type = head.removeprefix(_SCHEME).partition(";")[0]
    return DataUrl(media_type.strip().lower(), data)


def _find_media_type(data_url: DataUrl, file_name: str) -> str:
    """Returns the media type. The name and the first bytes decide where it says nothing."""
    if data_url.media_type not in _UNKNOWN_TYPES:
        return data_url.media_type
    if data_url.data.startswith(_PDF_START):
        return PDF
    return guess_type(file_name)[0] or data_url.media_type


def _is_text(media_type: str) -> bool:
    return (
        media_type.startswith("text/")
        or media_type in _TEXT_TYPES
        or media_type.endswith(("+json", "+xml"))
    )


def _decode_text(data: str, place: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode("utf-8-sig")
    except (binascii.Error, UnicodeDecodeError):
        why = f"`{place}.file` is no UTF-8 text: send it as UTF-8 in base64"
        raise Untranslatable(why, place) from None
