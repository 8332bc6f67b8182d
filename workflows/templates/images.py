"""The container images that the steps run in, by name and version."""

from importlib.metadata import version

VERSION = version("detr-workflows")

CPU_STEPS = f"detr-workflows/cpu-steps:{VERSION}"
"""data_prep, run_check, prepared_set and evaluation: no torch."""

DETR_JOB = f"detr-workflows/detr-job:{VERSION}"
"""detr_job, with torch."""

CVAT_BRIDGE = f"detr-workflows/cvat-bridge:{VERSION}"
"""cvat_bridge: the service behind the button, and the step `export`; no torch."""
