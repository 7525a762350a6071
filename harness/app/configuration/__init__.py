"""The configuration file: from YAML to frozen settings, with the place of every fault.

`configuration` is the way in. `source_locations` reads YAML, `schema` checks keys and types,
and `validation_errors` has the messages and the retired keys. Settings of routers and agents
are in `harness.routing.settings`. Nothing here reads the database.
"""
