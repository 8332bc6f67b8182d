"""The tensor names of published files, for each family that has several."""
