"""Shared by all commands: options, output, paging, waiting and lazy loading."""
