"""The Argo templates and the steps that they are made of, written in Hera."""
