"""Splits a flag of flagd, OpenFeature's flag daemon: the flag's variants are a route's targets.

flagd reads the flags from a JSON file that Swapproof writes. The outcomes are spans in the file
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

# The greatest number of bytes of outcomes that a call reads. The next call continues at their
# end.
MAX_READ_BYTES: Final = 64 * 1024 * 1024
OTHER_RULES: Final = "rules that Swapproof did not write"
_CALLER: Final = {"var": "targetingKey"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_TIME_NS: Final = 2**63
_Weights = Sequence[tuple[str, int]]


class FlagdFile:
    """A `SplitDriver` for flagd. It reads only outcomes that the Collector writes after its
    creation.
    """

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
        Shares of foreign rules have a name that is not a target's.
        """
        flag = _find_flag(self._load()[0], route)
        return _read_shares(flag, targets) if flag else {}

    def set_split(
        self,
        route: str,
        targets: Collection[Target],
        split: Split,
    ) -> None:
        """Writes the flag's shares. Keeps the salt while the variants stay the same,
        so that callers keep their variants. Raises UpstreamError if the flag lacks
        a variant, or has other targeting.
        """
        document, text = self._load()
        flag = _find_flag(document, route)
        if not flag:
            raise UpstreamError(
                f"flag {route!r} of {self._flags} is not enabled, or has no variants: "
                "correct the flag"
            )
        variants = {_find_target(v, flag["variants"], targets): v for v in flag["variants"]}
        names = {target.id: target.name for target in targets}
        for target in split:
            if target not in variants:
                raise UpstreamError(
                    f"flag {route!r} of {self._flags} has no variant of {names[target]}: add "
                    f"a variant with the value {names[target]!r}"
                )
        # The incumbent comes last, so that a candidate whose share grows keeps its callers.
        weights = [[variants[target], split[target]] for target in [*split][::-1]]
        bucket_by, shares = _read_distribution(flag.get("targeting"))
        if bucket_by is OTHER_RULES:
            raise UpstreamError(
                f"flag {route!r} of {self._flags} has targeting of its own: remove it, because "
                "it gives callers a model that Swapproof did not allow"
            )
        flag["defaultVariant"] = weights[-1][0]
        flag["targeting"] = {}
        if len(weights) > 1:
            if bucket_by is None or {*dict(shares)} != {name for name, _ in weights}:
                # A new salt gives a new candidate other callers than the previous candidate.
                bucket_by = {"cat": [secrets.token_hex(8), _CALLER]}
            # Without a targeting key, all requests would fall into one bucket.
            flag["targeting"] = {"if": [_CALLER, {"fractional": [bucket_by, *weights]}]}
        self._replace_file(document, text)

    def read_outcomes(self, since: datetime, driven: DrivenTargets) -> Iterator[Outcome]:  # noqa: ARG002
        """Yields the outcomes in the new lines, even if their calls began before `since`."""
        from router.observers.otlp_outcomes import read_flag_spans  # noqa: PLC0415 - slow

        document = self._load()[0]
        fault = ""
        for line in filter(bytes.strip, self._read_new_lines()):
            try:
                spans = list(read_flag_spans(line, protobuf=False))
            except InputError as error:
                fault = f"{error}"  # reported after the readable batches
                continue
            for span in spans:
                flag = _find_flag(document, span.flag)
                # Without a context, flagd returns the default variant, not a random one.
                if span.flag not in driven or not flag or not span.context:
                    continue
                if not 0 <= span.start_ns <= span.end_ns < _MAX_TIME_NS:
                    fault = f"a span lasts from {span.start_ns} to {span.end_ns}"
                    continue
                yield Outcome(
                    id=f"{span.id}-{span.flag}-{span.context}",
                    route=span.flag,
                    caller=span.context,
                    target=_find_target(span.variant, flag["variants"], driven[span.flag]),
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
        description = f"flagd's file {self._flags}"
        try:
            text = self._flags.read_bytes()
            document: dict[str, Any] = json.loads(text)
        except OSError as error:
            raise UpstreamError(f"{description} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise UpstreamError(f"{description} is not JSON: {error}") from None
        if not isinstance(document, dict) or not isinstance(document.get("flags"), dict):
            raise UpstreamError(f"{description} has no `flags`")
        return document, text

    def _replace_file(self, document: Mapping[str, Any], expected: bytes) -> None:
        """Replaces the file atomically, so that flagd never reads half of it.

        Args:
            expected: the content that this process read.

        Raises UpstreamError if the file has other content.
        """
        target_file = self._flags.resolve()
        temporary = None
        try:
            text = json.dumps(document, indent=2, allow_nan=False) + "\n"
            with NamedTemporaryFile("w", dir=target_file.parent, delete=False) as file:
                temporary = Path(file.name)
                file.write(text)
            status = target_file.stat()
            os.chown(temporary, status.st_uid, status.st_gid)
            temporary.chmod(status.st_mode)
            if target_file.read_bytes() != expected:
                raise UpstreamError(
                    f"flagd's file {target_file} changed while Swapproof read it"
                )
            temporary.replace(target_file)
            temporary = None
        except (OSError, ValueError) as error:
            raise UpstreamError(
                f"flagd's file {target_file} cannot be written: {error}"
            ) from None
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)

    def _read_new_lines(self) -> Iterator[bytes]:
        """Yields the complete new lines. Reads a new or smaller file from its start."""
        try:
            with self._spans.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._read_bytes:
                    self._inode = status.st_ino
                    self._read_bytes = 0
                file.seek(self._read_bytes)
                data = file.read(MAX_READ_BYTES)
        except FileNotFoundError:
            return  # the Collector has not written yet
        except OSError as error:
            raise UpstreamError(f"{self._spans} cannot be read: {error.strerror}") from None
        complete_lines, newline, _ = data.rpartition(b"\n")
        if not newline and len(data) == MAX_READ_BYTES:
            self._read_bytes += len(data)
            raise UpstreamError(f"{self._spans} has a line of over {MAX_READ_BYTES:,} bytes")
        self._read_bytes += len(complete_lines) + len(newline)
        yield from complete_lines.split(b"\n") if newline else ()


def _find_flag(document: Mapping[str, Any], route: str) -> dict[str, Any]:
    """Returns the flag if it is enabled and has variants; otherwise an empty dictionary."""
    flag = document["flags"].get(route)
    if not isinstance(flag, dict) or not isinstance(flag.get("variants"), dict):
        return {}
    return flag if flag.get("state") == "ENABLED" else {}


def _find_target(
    variant: str,
    variants: Mapping[str, Any],
    targets: Collection[Target],
) -> str:
    """Returns the id of the target that the variant names; otherwise the variant's own name."""
    value = variants.get(variant)
    value = value.get("model") if isinstance(value, dict) else value
    for names in (
        {t.id: t.name for t in targets},
        {t.id: t.model for t in targets},
    ):
        matching_ids = [id_ for id_, name in names.items() if name == value]
        if len(matching_ids) == 1:
            return matching_ids[0]
    return f"variant {variant}"


def _read_distribution(targeting: Any) -> tuple[Any, _Weights]:
    """Returns the operand that `fractional` hashes, and the weights by variant.

    The operand is None without targeting, and OTHER_RULES for rules that Swapproof did not
    write.
    """
    if not targeting:
        return None, ()
    try:
        caller, rule = targeting["if"]
        (bucket_by, *weights), *_ = rule.values()
        # flagd reads a negative weight as 0, and refuses a weight that is not an integer.
        weight_by_variant = [(name, max(0, weight)) for name, weight in weights]
        is_ours = [
            *targeting,
            *rule,
            *bucket_by,
        ] == ["if", "fractional", "cat"]
        is_ours = is_ours and caller == _CALLER and _CALLER in bucket_by["cat"]
    except (AttributeError, LookupError, TypeError, ValueError):
        return OTHER_RULES, ()
    is_ours = is_ours and all(
        type(name) is str and type(part) is int for name, part in weight_by_variant
    )
    return (bucket_by, weight_by_variant) if is_ours else (OTHER_RULES, ())


def _read_shares(flag: Mapping[str, Any], targets: Collection[Target]) -> Split:
    """Computes the shares by target, in basis points, as flagd would serve them."""
    variants = flag["variants"]
    default = f"{flag.get('defaultVariant')}"
    bucket_by, weights = _read_distribution(flag.get("targeting"))
    if bucket_by is OTHER_RULES:
        return {OTHER_RULES: BUCKETS}
    weight_by_target = Counter[str]()
    for name, weight in weights:
        weight_by_target[_find_target(name, variants, targets)] += weight
    total_weight = weight_by_target.total()
    if not total_weight:
        return {_find_target(default, variants, targets): BUCKETS}
    if default != weights[-1][0]:  # served without a targeting key
        return {f"default variant {default}": BUCKETS}
    return {
        name: max(1, round(part / total_weight * BUCKETS))
        for name, part in weight_by_target.items()
        if part
    }
