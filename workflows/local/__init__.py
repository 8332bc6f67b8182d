"""Run a rendered template on this machine."""
