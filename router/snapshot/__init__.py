"""The snapshot room holds the compiled routing revision in memory."""
