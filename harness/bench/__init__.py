"""The gate measured by itself: how often it errs, beside simpler rules (statistics.md §4)."""
