"""What the doctor looks at: the installation, its providers, and a tool loop on one target."""
