"""How many pods share the work of the step `prepare`."""

AUTO = "auto"
PARAMETER = "prepare-pods"
CHOICES = (AUTO, "1", "2", "4", "8", "16")
MOST_PODS = 16
SHARED_FROM_BYTES = 10_000_000_000
"""Smaller sources are prepared by one pod."""
BYTES_PER_POD = 5_000_000_000


def pods_for(choice: str, size_bytes: int) -> int:
    """The number of pods that `prepare-pods` means for sources of this size."""
    if choice != AUTO:
        return int(choice)
    if size_bytes < SHARED_FROM_BYTES:
        return 1
    return min(-(-size_bytes // BYTES_PER_POD), MOST_PODS)
