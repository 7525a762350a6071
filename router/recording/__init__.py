"""The recording room counts what requests did, in each worker, and writes it in the
background.
"""
