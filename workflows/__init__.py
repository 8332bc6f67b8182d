"""The Argo workflow templates, written in Hera, their rendering, and a runner for a laptop."""
