"""The command line: reads arguments, calls use cases, returns an exit code."""
