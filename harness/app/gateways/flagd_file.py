"""Splits a flag of flagd, OpenFeature's flag daemon: the flag's variants are a route's targets.

flagd reads the flags from a JSON file that Swapgate writes. The outcomes are spans in the file
that an OpenTelemetry Collector's `file` exporter writes, one batch of OTLP JSON a line.
Source: flagd's flag definitions, and its operation `fractional`.
"""

import json
import os
import secrets
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

from harness.canary.split import DrivenTargets, Outcome, Split
from harness.frame.errors import InputError, UpstreamError
from harness.frame.failures import FailureClass
from harness.providers.target import Target
from harness.routing.table import BUCKETS

# One call reads at most this much of the outcomes; the next call continues there.
MOST_BYTES: Final = 64 * 1024 * 1024
OTHER_RULES: Final = "rules that Swapgate did not write"
_CALLER: Final = {"var": "targetingKey"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_NS: Final = 2**63
_Weights = Sequence[tuple[str, int]]


class FlagdFile:
    """A `SplitDriver`. It reads only outcomes that are written after its creation."""

    def __init__(self, flags: Path, spans: Path) -> None:
        self._flags = flags
        self._spans = spans
        self._inode = 0
        self._read_bytes = 0
        if spans.exists():
            self._inode = spans.stat().st_ino
            self._read_bytes = spans.stat().st_size

    def begin_look(self) -> None:
        """Does nothing: each method reads the files, which other programs may change."""

    def read_split(self, route: str, targets: Collection[Target]) -> Split:
        """Returns the shares by target, in basis points. Empty if flagd has no such flag.
        Shares of foreign rules have a name that is no target's.
        """
        flag = _flag(self._load()[0], route)
        return _read_shares(flag, targets) if flag else {}

    def set_split(
        self,
        route: str,
        targets: Collection[Target],
        split: Split,
    ) -> None:
        """Writes the flag's shares. Keeps the salt while the variants stay, so that callers
        keep theirs.

        Raises UpstreamError if the flag lacks a variant or has targeting of its own.
        """
        document, text = self._load()
        flag = _flag(document, route)
        if not flag:
            raise UpstreamError(
                f"flag {route!r} of {self._flags} is not enabled, or has no variants: "
                "correct the flag"
            )
        variants = {_served(v, flag["variants"], targets): v for v in flag["variants"]}
        names = {target.id: target.name for target in targets}
        for target in split:
            if target not in variants:
                raise UpstreamError(
                    f"flag {route!r} of {self._flags} has no variant of {names[target]}: add "
                    f"a variant with the value {names[target]!r}"
                )
        # The incumbent comes last, so that a growing candidate keeps its callers.
        weights = [[variants[target], split[target]] for target in [*split][::-1]]
        bucket_by, shares = _distribution(flag.get("targeting"))
        if bucket_by is OTHER_RULES:
            raise UpstreamError(
                f"flag {route!r} of {self._flags} has targeting of its own: remove it, because "
                "it gives callers a model that Swapgate did not allow"
            )
        flag["defaultVariant"] = weights[-1][0]
        flag["targeting"] = {}
        if len(weights) > 1:
            if bucket_by is None or {*dict(shares)} != {name for name, _ in weights}:
                # A new salt, so that a new candidate gets other callers than the previous one.
                bucket_by = {"cat": [secrets.token_hex(8), _CALLER]}
            # Without a targeting key, all requests would fall into one bucket.
            flag["targeting"] = {"if": [_CALLER, {"fractional": [bucket_by, *weights]}]}
        self._write(document, text)

    def read_outcomes(self, since: datetime, driven: DrivenTargets) -> Iterator[Outcome]:  # noqa: ARG002
        """Yields the outcomes in the new lines, even if their calls began before `since`."""
        from router.observers.otlp_outcomes import read_flag_spans  # noqa: PLC0415 - slow

        document = self._load()[0]
        fault = ""
        for line in filter(bytes.strip, self._new_lines()):
            try:
                spans = list(read_flag_spans(line, protobuf=False))
            except InputError as error:
                fault = f"{error}"  # reported after the readable batches
                continue
            for span in spans:
                flag = _flag(document, span.flag)
                # Without a context, flagd returns the default variant, not a random one.
                if span.flag not in driven or not flag or not span.context:
                    continue
                if not 0 <= span.start_ns <= span.end_ns < _LATEST_NS:
                    fault = f"a span lasts from {span.start_ns} to {span.end_ns}"
                    continue
                yield Outcome(
                    id=f"{span.id}-{span.flag}-{span.context}",
                    route=span.flag,
                    caller=span.context,
                    target=_served(span.variant, flag["variants"], driven[span.flag]),
                    started_at=_EPOCH + timedelta(microseconds=span.start_ns // 1000),
                    failed=span.is_failed,
                    answered=not span.is_failed,
                    why=FailureClass.SERVER.value if span.is_failed else "",
                    latency_s=(span.end_ns - span.start_ns) / 1e9,
                    input_tokens=0,
                    output_tokens=0,
                )
        if fault:
            raise UpstreamError(f"a batch of {self._spans} is unreadable: {fault}")

    def _load(self) -> tuple[dict[str, Any], bytes]:
        """Returns the file's document and bytes."""
        about = f"flagd's file {self._flags}"
        try:
            text = self._flags.read_bytes()
            document: dict[str, Any] = json.loads(text)
        except OSError as error:
            raise UpstreamError(f"{about} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise UpstreamError(f"{about} is not JSON: {error}") from None
        if not isinstance(document, dict) or not isinstance(document.get("flags"), dict):
            raise UpstreamError(f"{about} has no `flags`")
        return document, text

    def _write(self, document: Mapping[str, Any], before: bytes) -> None:
        """Replaces the file at once, so that flagd never reads half of it.

        before: the content that this process read; a file with other content stays unchanged.
        """
        place = self._flags.resolve()
        part = None
        try:
            text = json.dumps(document, indent=2, allow_nan=False) + "\n"
            with NamedTemporaryFile("w", dir=place.parent, delete=False) as file:
                part = Path(file.name)
                file.write(text)
            about = place.stat()
            os.chown(part, about.st_uid, about.st_gid)
            part.chmod(about.st_mode)
            if place.read_bytes() != before:
                raise UpstreamError(f"flagd's file {place} changed while Swapgate read it")
            part.replace(place)
            part = None
        except (OSError, ValueError) as error:
            raise UpstreamError(f"flagd's file {place} cannot be written: {error}") from None
        finally:
            if part is not None:
                part.unlink(missing_ok=True)

    def _new_lines(self) -> Iterator[bytes]:
        """Yields the complete new lines. Reads a new or smaller file from its start."""
        try:
            with self._spans.open("rb") as file:
                about = os.fstat(file.fileno())
                if about.st_ino != self._inode or about.st_size < self._read_bytes:
                    self._inode = about.st_ino
                    self._read_bytes = 0
                file.seek(self._read_bytes)
                data = file.read(MOST_BYTES)
        except FileNotFoundError:
            return  # the Collector has not written yet
        except OSError as error:
            raise UpstreamError(f"{self._spans} cannot be read: {error.strerror}") from None
        whole, newline, _ = data.rpartition(b"\n")
        if not newline and len(data) == MOST_BYTES:
            self._read_bytes += len(data)
            raise UpstreamError(f"{self._spans} has a line of over {MOST_BYTES:,} bytes")
        self._read_bytes += len(whole) + len(newline)
        yield from whole.split(b"\n") if newline else ()


def _flag(document: Mapping[str, Any], route: str) -> dict[str, Any]:
    """Returns the flag if it is enabled and has variants, else an empty dictionary."""
    flag = document["flags"].get(route)
    if not isinstance(flag, dict) or not isinstance(flag.get("variants"), dict):
        return {}
    return flag if flag.get("state") == "ENABLED" else {}


def _served(
    variant: str,
    variants: Mapping[str, Any],
    targets: Collection[Target],
) -> str:
    """Returns the id of the target that the variant names, else the variant's own name."""
    value = variants.get(variant)
    value = value.get("model") if isinstance(value, dict) else value
    for names in (
        {t.id: t.name for t in targets},
        {t.id: t.model for t in targets},
    ):
        found = [id_ for id_, name in names.items() if name == value]
        if len(found) == 1:
            return found[0]
    return f"variant {variant}"


def _distribution(targeting: Any) -> tuple[Any, _Weights]:
    """Returns the operand that `fractional` hashes, and the weights by variant.

    The operand is None without targeting, and OTHER_RULES for rules of another author.
    """
    if not targeting:
        return None, ()
    try:
        caller, rule = targeting["if"]
        (bucket_by, *weights), *_ = rule.values()
        # flagd reads a negative weight as 0, and refuses a weight that is not an integer.
        found = [(name, max(0, weight)) for name, weight in weights]
        ours = [
            *targeting,
            *rule,
            *bucket_by,
        ] == ["if", "fractional", "cat"]
        ours = ours and caller == _CALLER and _CALLER in bucket_by["cat"]
    except (AttributeError, LookupError, TypeError, ValueError):
        return OTHER_RULES, ()
    ours = ours and all(type(name) is str and type(part) is int for name, part in found)
    return (bucket_by, found) if ours else (OTHER_RULES, ())


def _read_shares(flag: Mapping[str, Any], targets: Collection[Target]) -> Split:
    """Computes the shares by target, in basis points, as flagd would serve them."""
    variants = flag["variants"]
    default = f"{flag.get('defaultVariant')}"
    bucket_by, weights = _distribution(flag.get("targeting"))
    if bucket_by is OTHER_RULES:
        return {OTHER_RULES: BUCKETS}
    parts = Counter[str]()
    for name, weight in weights:
        parts[_served(name, variants, targets)] += weight
    whole = parts.total()
    if not whole:
        return {_served(default, variants, targets): BUCKETS}
    if default != weights[-1][0]:  # served without a targeting key
        return {f"default variant {default}": BUCKETS}
    return {name: max(1, round(part / whole * BUCKETS)) for name, part in parts.items() if part}
