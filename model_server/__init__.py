"""Trained models for automatic annotation in CVAT. To CVAT, this server looks like a Nuclio dashboard."""
