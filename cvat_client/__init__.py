"""Shared by the service and the steps: CVAT's REST API, the subject of a run, settings, signed grants."""
