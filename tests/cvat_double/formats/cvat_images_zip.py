"""An export as CVAT's "CVAT for images 1.1" exporter writes it: one `annotations.xml`, and images if asked for."""

import io
import zipfile
from collections.abc import Sequence
from xml.etree import ElementTree

from tests.cvat_double.formats.coco_zip import unused
from tests.cvat_double.world import Label, Task, now

ELEMENTS = {"rectangle": "box", "polygon": "polygon", "polyline": "polyline", "points": "points"}


def export(tasks: Sequence[Task], labels: Sequence[Label], *, save_images: bool) -> bytes:
    """The zip of one task, or of a project's tasks."""
    root = ElementTree.Element("annotations")
    _text(root, "version", "1.1")
    kind = "project" if tasks and tasks[0].project and len(tasks) > 1 else "task"
    meta = ElementTree.SubElement(root, "meta")
    about = ElementTree.SubElement(meta, kind)
    if kind == "task":
        _text(about, "subset", tasks[0].subset)
    listed = ElementTree.SubElement(about, "labels")
    for label in labels:
        own = ElementTree.SubElement(listed, "label")
        for name, text in (("name", label.name), ("color", label.color), ("type", label.type)):
            _text(own, name, text)
    _text(meta, "dumped", now().isoformat())
    names: dict[int, str] = {label.id: label.name for label in labels}
    pictures: dict[str, bytes] = {}
    for task in tasks:
        for index, frame in enumerate(task.frames):
            if index not in task.deleted_frames:
                name = unused(frame.name, pictures)
                pictures[name] = frame.content
                size = {"width": str(frame.width), "height": str(frame.height)}
                place = {"id": str(index), "name": name, "subset": task.subset or "default", "task_id": str(task.id)}
                image = ElementTree.SubElement(root, "image", {**place, **size})
                for shape in task.shapes:
                    if shape["frame"] == index:
                        _add_shape(image, shape, names)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
        for name, content in pictures.items() if save_images else ():
            archive.writestr(f"images/{name}", content)
    return buffer.getvalue()


def _add_shape(image: ElementTree.Element, shape: dict, names: dict[int, str]) -> None:
    points = [f"{number:.2f}" for number in shape["points"]]
    given = {"label": names[shape["label_id"]], "source": shape["source"], "occluded": str(int(shape["occluded"]))}
    if shape["type"] == "rectangle":
        given |= dict(zip(("xtl", "ytl", "xbr", "ybr"), points, strict=True))
        if shape["rotation"]:
            given["rotation"] = f"{shape['rotation']:.2f}"
    else:
        given["points"] = ";".join(f"{x},{y}" for x, y in zip(points[::2], points[1::2], strict=True))
    given["z_order"] = str(shape["z_order"])
    if shape["group"]:
        given["group_id"] = str(shape["group"])
    ElementTree.SubElement(image, ELEMENTS[shape["type"]], given)


def _text(parent: ElementTree.Element, name: str, text: str) -> None:
    ElementTree.SubElement(parent, name).text = text
