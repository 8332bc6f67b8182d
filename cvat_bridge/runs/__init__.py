"""Runs started from CVAT: submission, views, and their files in the store."""
