"""The environment variable that tells a program that it runs in an installation."""

SETTINGS = "DETR_WORKFLOWS_SETTINGS"
"""Path of the settings file of the installation."""
