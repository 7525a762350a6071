"""Compares the audit log with signed checkpoints that were kept outside the database, in a file
or at an address.
"""

from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Final

from harness.app.installation import Installation
from harness.domain.errors import InputError
from harness.domain.operations.audit import AuditPosition
from harness.runtime.audit_checkpoint import read_checkpoints
from harness.runtime.outbound.guarded_http import GuardedHttpClient

TIMEOUT_S: Final = 30.0


@dataclass(frozen=True)
class AnchorReport:
    """Says whether the log has the events that checkpoints name."""

    checkpoints: int
    newest: AuditPosition
    first_missing: int | None  # the first that the log lacks, or has with another content


def compare_with_anchor(installation: Installation, where: str) -> AnchorReport:
    """Reads the checkpoints at `where`, a file or an HTTP address, and looks for each in the
    log. Raises InputError where there is none, SignatureInvalid for one that control did not
    sign.
    """
    marks = sorted(
        read_checkpoints(_read(where), installation.signatures), key=lambda mark: mark.number
    )
    if not marks:
        raise InputError(f"{where} has no checkpoint of an audit log")
    missing = None
    with installation.store.read() as tx:
        for mark in marks:
            event = tx.audit.get(mark.number)
            if event is None or event.mac != mark.mac:
                missing = mark.number
                break
    return AnchorReport(len(marks), marks[-1], missing)


def _read(where: str) -> str:
    try:
        if where.startswith(("http://", "https://")):
            with GuardedHttpClient().send(where, {}, timeout_s=TIMEOUT_S) as answer:
                if answer.status != 200:
                    raise InputError(f"{where} answered {answer.status}")
                return answer.read().decode("utf-8", "replace")
        return Path(where).read_text(encoding="utf-8", errors="replace")
    except (OSError, HTTPException, ValueError) as error:
        raise InputError(f"{where} cannot be read: {error}") from None
