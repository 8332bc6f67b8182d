"""Metrics, curves, confusion matrix, gallery and report page of a run. Does not import torch."""
