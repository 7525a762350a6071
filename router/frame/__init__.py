"""What every other room of the router stands on."""
