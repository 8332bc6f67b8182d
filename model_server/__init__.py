"""Trained models as CVAT's automatic annotation: CVAT takes this server for its Nuclio dashboard."""
