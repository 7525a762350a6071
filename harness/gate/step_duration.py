"""A canary's step lasts a minimum time, and a minimum of the route's peak hours."""

from datetime import UTC, datetime, timedelta
from typing import Final

from harness.frame.formatting import add_seconds, format_span
from harness.gate.policy import CanaryStep, PeakHours

DAY: Final = timedelta(days=1)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def missing_duration(
    step: CanaryStep,
    peak: PeakHours,
    began: datetime,
    now: datetime,
) -> str:
    """Describes how much of the step's minimum time is left; empty if the step has lasted long
    enough.
    """
    lasted_s = (now - began).total_seconds()
    if lasted_s < 0:
        # The clock was set back, or is behind the clock of the process that began the step.
        return f"By this machine's clock the step begins in {_format_minutes(-lasted_s)}"
    missing_s = step.min_s - lasted_s
    if missing_s > 0:
        least = _format_minutes(step.min_s)
        return f"The step lasts at least {least}: {_format_minutes(missing_s)} are left"
    missing_s = step.min_peak_s - peak_seconds(peak, began, now) if step.min_peak_s else 0.0
    if missing_s > 0:
        return (
            f"The step lasts at least {_format_minutes(step.min_peak_s)} of peak traffic "
            f"({peak.start_h} to {peak.end_h} h UTC): {_format_minutes(missing_s)} are left"
        )
    return ""


def peak_seconds(
    peak: PeakHours,
    began: datetime,
    now: datetime,
) -> float:
    """Returns the seconds of peak hours between two moments; 0 if the clock was set back."""
    lasted = _peak_until(peak, now) - _peak_until(peak, began)
    return max(timedelta(), lasted).total_seconds()


def peak_reached_at(
    peak: PeakHours,
    began: datetime,
    length_s: float,
) -> datetime:
    """Returns the first moment with `length_s` seconds of peak hours since `began`.

    Args:
        length_s: more than 0.
    """
    length = _peak_length(peak)
    days, rest = divmod(_peak_until(peak, began) + timedelta(seconds=length_s), length)
    if not rest:  # return the end of a day's peak, not the start of the next day's
        days = days - 1
        rest = length
    return add_seconds(_first_peak(peak), (days * DAY + rest).total_seconds())


def _peak_until(peak: PeakHours, at: datetime) -> timedelta:
    """Returns the length of all peak hours from 1970 to a moment."""
    days, rest = divmod(at - _first_peak(peak), DAY)
    length = _peak_length(peak)
    return days * length + min(rest, length)


def _first_peak(peak: PeakHours) -> datetime:
    return _EPOCH + timedelta(hours=peak.start_h)


def _peak_length(peak: PeakHours) -> timedelta:
    return timedelta(hours=(peak.end_h - peak.start_h) % 24 or 24)


def _format_minutes(seconds: float) -> str:
    return format_span(60 * max(1, round(seconds / 60)))
