"""One script for each claim about speed or memory, against a named baseline, in one run."""
