"""The dashboard shows what the control plane knows. Its buttons call the same use cases."""
