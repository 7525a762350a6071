"""What is stored of suites, runs and spending."""
