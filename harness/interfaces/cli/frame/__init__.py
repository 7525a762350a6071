"""What every command shares: options, output, paging, waiting, and lazy loading."""
