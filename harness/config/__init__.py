"""The configuration file, and the settings that it is parsed into."""
