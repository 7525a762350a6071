"""Commands about eval runs, suites, captures, the gate on files, and benchmarks."""
