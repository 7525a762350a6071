"""Keeps the number and MAC of the audit log's last event in a signed file beside the database,
so that a log that was cut off at its end is noticed; writes and reads the same as signed lines
of JSON for places outside (`checkpoint_line`, `read_checkpoints`).
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from harness.domain.content_hash import canonical_json
from harness.domain.errors import SignatureInvalid
from harness.domain.operations.audit import AuditPosition
from harness.domain.operations.row_signatures import KeyPurpose
from harness.ports import Signatures

CHECKPOINT_FILE: Final = "audit.checkpoint"
# What is signed can be nothing else than the end of an audit log.
_DOMAIN: Final = b"swapgate audit checkpoint 1\n"


@dataclass(frozen=True)
class AuditCheckpointFile:
    """Implements ports.AuditAnchor. Written whole, or not at all."""

    path: Path
    signatures: Signatures

    def read(self) -> AuditPosition | None:
        """Reads the kept position in the audit log; None where there is no file. Raises
        SignatureInvalid for a file that control did not sign.
        """
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            mark = AuditPosition(int(stored["number"]), str(stored["mac"]))
            signature = str(stored["signature"])
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError) as error:
            raise SignatureInvalid(
                f"{self.path} cannot be read ({error}): compare the audit log with a backup, "
                "then remove the file"
            ) from error
        try:
            self.signatures.check(_payload(mark), signature, KeyPurpose.CONTROL)
        except SignatureInvalid as error:
            raise SignatureInvalid(
                f"{self.path} is not to be believed: {error}. Compare the audit log with a "
                "backup, then remove the file"
            ) from None
        return mark

    def keep(self, mark: AuditPosition) -> None:
        signature = self.signatures.sign(_payload(mark))
        text = canonical_json({"number": mark.number, "mac": mark.mac, "signature": signature})
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        fresh.write_text(text + "\n", encoding="utf-8")
        fresh.replace(self.path)


def checkpoint_line(mark: AuditPosition, at: datetime, signatures: Signatures) -> str:
    """Writes a position in the audit log as a signed line of JSON. at: when; not signed."""
    return canonical_json(
        {
            "checkpoint": mark.number,
            "mac": mark.mac,
            "signature": signatures.sign(_payload(mark)),
            "at": at.isoformat(),
        }
    )


def read_checkpoints(text: str, signatures: Signatures) -> Sequence[AuditPosition]:
    """Reads the checkpoints among lines of JSON, also behind what syslog writes before them,
    and leaves out every other line. Raises SignatureInvalid for one that control did not sign.
    """
    marks = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            stored = json.loads(line[line.index("{") :])
            if "checkpoint" not in stored:
                continue
            mark = AuditPosition(int(stored["checkpoint"]), str(stored["mac"]))
            signatures.check(_payload(mark), str(stored["signature"]), KeyPurpose.CONTROL)
        except (ValueError, LookupError, TypeError):
            continue
        except SignatureInvalid as error:
            raise SignatureInvalid(f"line {number}: {error}") from None
        marks.append(mark)
    return marks


def _payload(mark: AuditPosition) -> bytes:
    return _DOMAIN + canonical_json([mark.number, mark.mac]).encode()
