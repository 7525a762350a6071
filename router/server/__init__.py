"""The server room reads HTTP/1.1 from clients and hands each request to the ASGI
application.
"""
