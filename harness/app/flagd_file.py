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
from typing import Any, Final

from harness.canary.split import Driven, Outcome, Split
from harness.frame.errors import InputError, UpstreamError
from harness.frame.failures import FailureClass
from harness.providers.target import Target
from harness.routing.table import BUCKETS

# The most that one look reads of the outcomes; the next look continues there.
MOST_BYTES: Final = 64 * 1024 * 1024
_CALLER: Final = {"var": "targetingKey"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
OTHER_RULES: Final = "rules that Swapgate did not write"
_Weights = Sequence[tuple[str, int]]


class FlagdFile:
    """A `SplitDriver`. It counts the outcomes that are written from its creation on."""

    def __init__(self, flags: Path, spans: Path) -> None:
        self._flags, self._spans = flags, spans
        self._read_bytes = spans.stat().st_size if spans.exists() else 0

    def read_split(self, route: str, targets: Collection[Target]) -> Split:
        flag = self._load()["flags"].get(route, {})
        return _read_shares(flag, targets) if flag.get("state") == "ENABLED" else {}

    def set_split(self, route: str, targets: Collection[Target], split: Split) -> None:
        document = self._load()
        flag = document["flags"].get(route, {})
        if flag.get("state") != "ENABLED":
            raise UpstreamError(f"flag {route!r} of {self._flags} is not enabled: enable it")
        variants = {_served(v, flag["variants"], targets): v for v in flag["variants"]}
        names = {target.id: target.name for target in targets}
        for target in split:
            if target not in variants:
                raise UpstreamError(
                    f"flag {route!r} of {self._flags} has no variant of {names[target]}: add "
                    f"a variant with the value {names[target]!r}"
                )
        # The incumbent comes last: so the candidate keeps its callers while its share grows.
        weights = [[variants[target], split[target]] for target in [*split][::-1]]
        bucket_by, before = _distribution(flag.get("targeting"))
        if bucket_by is OTHER_RULES:
            raise UpstreamError(
                f"flag {route!r} of {self._flags} has targeting of its own: remove it, because "
                "it gives callers a model that Swapgate did not allow"
            )
        flag["defaultVariant"], flag["targeting"] = weights[-1][0], {}
        if len(weights) > 1:
            if bucket_by is None or {*dict(before)} != {*dict(weights)}:
                # A new candidate gets other callers than the one before.
                bucket_by = {"cat": [secrets.token_hex(8), _CALLER]}
            # Without a targeting key, all requests would fall into one bucket.
            flag["targeting"] = {"if": [_CALLER, {"fractional": [bucket_by, *weights]}]}
        self._write(document)

    def read_outcomes(self, since: datetime, driven: Driven) -> Iterator[Outcome]:
        from router.observers.otlp_outcomes import read_flag_spans  # noqa: PLC0415 - slow

        flags, fault = self._load()["flags"], ""
        for line in self._new_lines():
            try:
                spans = list(read_flag_spans(line, protobuf=False))
            except InputError as error:
                fault = f"{error}"  # the other batches still count
                continue
            for span in spans:
                try:
                    started_at = _EPOCH + timedelta(microseconds=span.start_ns // 1000)
                except OverflowError:
                    fault = f"{span.start_ns} ns is no time"
                    continue
                if span.flag not in driven or span.flag not in flags or started_at < since:
                    continue
                if not span.context:
                    continue  # chance did not choose its variant: it is always the default
                variants = flags[span.flag]["variants"]
                yield Outcome(
                    id=f"{span.id}-{span.flag}",
                    route=span.flag,
                    caller=span.context,
                    target=_served(span.variant, variants, driven[span.flag]),
                    started_at=started_at,
                    failed=span.is_failed,
                    answered=not span.is_failed,
                    why=FailureClass.SERVER.value if span.is_failed else "",
                    latency_s=(span.end_ns - span.start_ns) / 1e9,
                    input_tokens=0,
                    output_tokens=0,
                )
        if fault:
            raise UpstreamError(f"a batch of {self._spans} is unreadable: {fault}")

    def _load(self) -> dict[str, Any]:
        about = f"flagd's file {self._flags}"
        try:
            document: dict[str, Any] = json.loads(self._flags.read_bytes())
        except OSError as error:
            raise UpstreamError(f"{about} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise UpstreamError(f"{about} is not JSON: {error}") from None
        flags = document.get("flags") if isinstance(document, dict) else None
        if not isinstance(flags, dict) or not all(map(_is_flag, flags.values())):
            raise UpstreamError(f"{about} does not define flags with variants")
        return document

    def _write(self, document: Mapping[str, Any]) -> None:
        """Replaces the file at once, so that flagd never reads half of it."""
        place = self._flags.resolve()
        part = place.with_name(f".{place.name}.part")
        try:
            part.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
            part.chmod(place.stat().st_mode)
            part.replace(place)
        except (OSError, ValueError) as error:
            part.unlink(missing_ok=True)
            raise UpstreamError(f"flagd's file {place} cannot be written: {error}") from None

    def _new_lines(self) -> Iterator[bytes]:
        """Yields the whole lines since the last look. A file that shrank was rotated."""
        try:
            with self._spans.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._read_bytes:
                    self._read_bytes = 0
                file.seek(self._read_bytes)
                whole, newline, _ = file.read(MOST_BYTES).rpartition(b"\n")
        except FileNotFoundError:
            return  # the Collector has not written yet
        except OSError as error:
            raise UpstreamError(f"{self._spans} cannot be read: {error.strerror}") from None
        self._read_bytes += len(whole) + len(newline)
        yield from whole.split(b"\n") if newline else ()


def _is_flag(flag: object) -> bool:
    return isinstance(flag, dict) and isinstance(flag.get("variants"), dict)


def _served(variant: str, variants: Mapping[str, Any], targets: Collection[Target]) -> str:
    """Returns the id of the target that a variant names, or the variant's own name."""
    value = variants.get(variant)
    value = value.get("model") if isinstance(value, dict) else value
    for target in targets:
        if value in (target.name, target.model):
            return target.id
    return f"variant {variant}"


def _distribution(targeting: Any) -> tuple[Any, _Weights]:
    """Returns what `fractional` hashes, if it is Swapgate's, and its weights by variant.

    Without targeting, there are no weights.
    """
    if not targeting:
        return None, ()
    try:
        caller, rule = targeting["if"]
        (bucket_by, *weights), *_ = rule.values()
        # flagd reads a negative weight as 0.
        found = [(str(name), max(0, int(weight))) for name, weight in weights]
        ours = caller == _CALLER and [*rule] == ["fractional"] and _CALLER in bucket_by["cat"]
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError):
        return OTHER_RULES, ()
    return (bucket_by, found) if ours else (OTHER_RULES, ())


def _read_shares(flag: Mapping[str, Any], targets: Collection[Target]) -> Split:
    variants, default = flag["variants"], f"{flag.get('defaultVariant')}"
    bucket_by, weights = _distribution(flag.get("targeting"))
    if bucket_by is OTHER_RULES:
        return {OTHER_RULES: BUCKETS}
    whole, split = sum(weight for _, weight in weights), Counter[str]()
    for name, weight in weights:
        split[_served(name, variants, targets)] += (
            round(weight / whole * BUCKETS) if whole else 0
        )
    # Requests without a targeting key get the default variant.
    served = _served(default, variants, targets)
    split[served] = max(split[served], 1) if whole else BUCKETS
    return split
