"""Reports on a prepared set: text lines, JSON and an HTML page."""
