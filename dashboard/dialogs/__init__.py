"""Dialogs and buttons of the pages, which call `harness.control`."""
