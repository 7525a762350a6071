"""One protocol's requests and answers said in another. Pure; sent by `transport.bridge`."""
