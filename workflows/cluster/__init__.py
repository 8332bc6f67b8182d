"""The commands that use a cluster: submit, watch, pools, preflight. The other commands never import this package."""
