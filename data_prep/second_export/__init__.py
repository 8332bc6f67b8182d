"""CVAT's second export of a task: who drew each box, groups and rotation, joined to the boxes of the first."""
