"""The dashboard: what people look at, and the buttons that call `harness.control`."""
