"""Other gateways: Swapgate splits their traffic, and converts their configurations.

`drive` keeps a gateway's split equal to the routing table. The drivers are `litellm_admin` and
`flagd_file`; their port and the pure rules are in `harness.canary.split`. `litellm_import`
converts a configuration once and needs no running gateway.
"""
