"""Commands for eval runs, suites, captures, and the gate's rule on files."""
