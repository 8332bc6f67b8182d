"""Formats whose boxes are lines of text: YOLO 1.1, MOT, KITTI and Open Images."""
