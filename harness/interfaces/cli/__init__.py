"""The command line: reads arguments, calls use cases, and ends with an exit code."""
