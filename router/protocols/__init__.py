"""The protocols room reads and writes the wire formats that clients and providers speak."""
