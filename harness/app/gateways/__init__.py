"""Other gateways: Swapproof splits their traffic, and converts their configurations.

`drive` keeps a gateway's split equal to the routing table, by the driver `litellm_admin` or
`flagd_file`. Their protocol and the pure rules are in `harness.canary.split`. `litellm_import`
converts a configuration once and needs no running gateway.
"""
