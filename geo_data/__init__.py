"""Data about places: see README.md beside this file. Read by `importlib.resources`."""
