"""What the command line asks of a cluster: submit, watch, pools, preflight. Never imported by the other verbs."""
