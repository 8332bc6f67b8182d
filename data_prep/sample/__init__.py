"""Draw a sample export: a tray of machine parts, with the boxes of its parts."""
