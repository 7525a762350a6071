"""The frame of the REST API: access, request bodies, answers and the OpenAPI document."""
