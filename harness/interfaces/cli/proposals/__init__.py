"""Commands about proposals: asking, comparing, waiting, reporting and replaying."""
