"""How a record is stored, signed, read and listed."""
