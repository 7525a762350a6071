"""The state of targets and of providers' keys in one worker, and its alerts."""
