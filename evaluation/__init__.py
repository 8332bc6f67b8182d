"""Metrics, curves, confusion, gallery and the report page. No torch; reads a run and a prepared set."""
