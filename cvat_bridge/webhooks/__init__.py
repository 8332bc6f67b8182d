"""Runs that start when something happens in CVAT."""
