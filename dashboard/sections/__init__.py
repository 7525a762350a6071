"""The parts of a page that stand in files of their own."""
