"""Records of drift checks and spending."""
