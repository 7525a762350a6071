"""`make demo`: the main job on this machine: real processes, real HTTP, real SQL."""
