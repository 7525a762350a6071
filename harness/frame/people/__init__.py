"""People, their keys and roles, and the four-eyes rule."""
