"""The Argo workflow templates and their steps, written in Hera."""
