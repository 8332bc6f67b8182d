"""Whether a run could work in a namespace, seen with the rights of the caller."""
