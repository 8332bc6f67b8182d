"""From CVAT exports to a prepared set: reading, checking, splitting, writing once, reading back."""
