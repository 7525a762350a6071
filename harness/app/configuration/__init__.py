"""The configuration file: from YAML to frozen settings, with the place of every fault.

Callers use `configuration`. `source_locations` reads YAML, `schema` checks keys and types, and
`validation_errors` has the messages and the retired keys. Settings of routers and agents are in
`harness.routing.settings`. No module here reads the database.
"""
