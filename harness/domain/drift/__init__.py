"""What a drift watch is: the same items asked of an incumbent again and again."""
