"""Logs of requests, from the tools that record them: recognised, read whole or as a stream."""
