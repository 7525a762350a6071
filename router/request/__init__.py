"""The request room takes one model request from its body through route, plan and attempts to
its answer.
"""
