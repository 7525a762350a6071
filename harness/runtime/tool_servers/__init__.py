"""Tools that agents use at the MCP servers of the configuration, whatever those do."""
