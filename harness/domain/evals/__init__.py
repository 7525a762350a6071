"""What an evaluation is: suites, runs and samples, pins, verdicts and costs."""
