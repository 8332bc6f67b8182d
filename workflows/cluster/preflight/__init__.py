"""Check whether a run can work in a namespace, with the permissions of the caller."""
