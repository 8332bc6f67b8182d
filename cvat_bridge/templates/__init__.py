"""Workflow templates as CVAT's users see them: which are offered, their form, and their parameters filled in."""
