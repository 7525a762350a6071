"""The MCP server: what agents of other programs may see and ask for."""
