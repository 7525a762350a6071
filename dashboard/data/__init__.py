"""What the pages show: read models for each page, and the same as pandas frames."""
