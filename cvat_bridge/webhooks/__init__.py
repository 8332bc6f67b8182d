"""Runs that events in CVAT start automatically."""
