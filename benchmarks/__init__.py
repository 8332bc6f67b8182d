"""One script for each claim about speed or memory. Each measures against a named baseline in the same run."""
