"""What a step lasts at least, whatever the evidence says. Time alone never moves it on."""

from datetime import UTC, datetime, timedelta

from harness.domain.proposals.policy import CanaryStep, PeakHours

DAY = timedelta(days=1)


def missing_duration(step: CanaryStep, peak: PeakHours, began: datetime, now: datetime) -> str:
    """What is missing of the step's floors, in words; empty when nothing is."""
    lasted_s = (now - began).total_seconds()
    if lasted_s < 0:
        # Set back, or behind the clock of the process that began it.
        return f"By this machine's clock the step begins in {_hours(-lasted_s)}"
    missing_s = step.min_s - lasted_s
    if missing_s > 0:
        return f"The step lasts at least {_hours(step.min_s)}: {_hours(missing_s)} are left"
    missing_s = step.min_peak_s - peak_seconds(peak, began, now) if step.min_peak_s else 0.0
    if missing_s > 0:
        return (
            f"The step lasts at least {_hours(step.min_peak_s)} of peak traffic "
            f"({peak.start_h} to {peak.end_h} h UTC): {_hours(missing_s)} are left"
        )
    return ""


def peak_seconds(peak: PeakHours, began: datetime, now: datetime) -> float:
    """Seconds of peak hours between two moments; 0 if the clock was set back in between."""
    began, now = began.astimezone(UTC), now.astimezone(UTC)
    length = timedelta(hours=(peak.end_h - peak.start_h) % 24 or 24)
    # From the day before: a window may go over midnight.
    midnight = began.replace(hour=0, minute=0, second=0, microsecond=0) - DAY
    total = timedelta()
    while midnight < now:
        opens = midnight + timedelta(hours=peak.start_h)
        total += max(timedelta(), min(now, opens + length) - max(began, opens))
        midnight += DAY
    return total.total_seconds()


def _hours(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes / 60:.3g} h"
