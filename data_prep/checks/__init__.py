"""Checks of a whole source: whether its boxes, images and classes belong together."""
