"""Runs as CVAT's users see them: submitted, shown, and what they left in the store."""
