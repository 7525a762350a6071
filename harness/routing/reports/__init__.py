"""Reports about routes for people: traffic, the month's bill, scorecard, providers' matrix."""
