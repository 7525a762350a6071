"""Commands for proposals: create, compare, wait, report and replay."""
