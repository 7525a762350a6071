"""API, command line and MCP."""
