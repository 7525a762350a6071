"""A worker's process and its HTTP server: connections, paths, and the parts of the
application.
"""
