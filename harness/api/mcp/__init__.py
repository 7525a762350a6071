"""The MCP server: what agents of other programs may see and ask for, with keys and roles as the
management API.
"""
