"""What each endpoint's protocol means to the router; one file each."""
