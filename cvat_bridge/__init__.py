"""The service between CVAT and the workflows: the menu item in CVAT, its form, and runs started from CVAT."""
