"""The command line: reads arguments, calls `harness.control`, and ends with an exit code."""
