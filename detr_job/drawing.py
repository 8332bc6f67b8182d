"""Detections drawn on the image they were found in."""

import colorsys

from PIL import Image, ImageDraw, ImageFont

from detr_job.inference import Found


def class_colour(index: int) -> tuple[int, int, int]:
    """Colours that differ as much as possible for the first classes: the hue turns by the golden angle."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.381966 % 1.0, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_detections(image: Image.Image, found: list[Found], classes: tuple[str, ...]) -> Image.Image:
    """A copy of the image with boxes, names and scores; line and text scale with the image."""
    picture = image.convert("RGB")
    canvas = ImageDraw.Draw(picture)
    width = max(2, round(min(picture.size) / 200))
    font = ImageFont.load_default(max(11.0, min(picture.size) / 35))
    for detection in sorted(found, key=lambda each: each.score):
        colour = class_colour(classes.index(detection.label))
        x, y, box_width, box_height = detection.bbox
        right, bottom = max(x, x + box_width), max(y, y + box_height)
        canvas.rectangle((x, y, right, bottom), outline=colour, width=width)
        text = f"{detection.label} {detection.score:.2f}"
        left, top, text_right, text_bottom = canvas.textbbox((x, y), text, font=font)
        height = text_bottom - top + 2 * width
        above = y - height if y >= height else y
        canvas.rectangle((x, above, x + text_right - left + 2 * width, above + height), fill=colour)
        dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 140
        canvas.text((x + width, above + width - (top - y)), text, fill="white" if dark else "black", font=font)
    return picture
