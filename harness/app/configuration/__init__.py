"""The configuration file: from YAML to frozen settings, with the place of every fault.

`configuration` is the way in. `source_locations` reads YAML, `schema` checks keys and types,
and `validation_errors` has the ranges and the retired keys. The settings of routers and agents
themselves are in `harness.routing.settings`. Nothing here reads the database.
"""
