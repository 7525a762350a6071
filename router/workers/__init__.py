"""The workers room starts, watches and replaces the worker processes of one router."""
