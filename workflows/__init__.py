"""The Argo templates, written in Hera, their rendering, and the runner that takes them to a laptop."""
