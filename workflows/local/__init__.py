"""Running a rendered template on this machine."""
