"""The container images of the steps, by name and version."""

from importlib.metadata import version

VERSION = version("detr-workflows")

CPU_STEPS = f"detr-workflows/cpu-steps:{VERSION}"
"""Image with data_prep, run_check, prepared_set and evaluation, without torch."""

DETR_JOB = f"detr-workflows/detr-job:{VERSION}"
"""Image with detr_job and torch."""

CVAT_BRIDGE = f"detr-workflows/cvat-bridge:{VERSION}"
"""Image with cvat_bridge: the service behind the button, and the step `export`; without torch."""
