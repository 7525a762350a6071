"""Clock, schedule, processes and telemetry."""
