"""The dashboard shows what the control plane knows, and its buttons call the use cases of `harness`."""
