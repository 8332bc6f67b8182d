"""What people and programs read about a prepared set: lines, JSON, and a page."""
