"""What a conversation carries when it moves to another target."""
