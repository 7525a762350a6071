"""The snapshot room holds the routing revision in memory, compiled so that a request looks
everything up.
"""
