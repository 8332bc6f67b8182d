"""Which boxes are new, what stands in attributes, and under which names models appear: values in, values out."""

from datetime import UTC, datetime, timedelta

import pytest
from cvat_sdk import models
from cvat_sdk.api_client import exceptions
from cvat_sdk.attributes import attribute_value_validator
from hypothesis import given
from hypothesis import strategies as st

from cvat_client.subject import Subject
from cvat_steps.new_shapes import Attribute, Rectangle, attribute_values, iou, not_there_yet
from model_server.functions import functions, subject_title
from model_server.trained_models import Choice, ListedModel, subject_in

HOME = "s3://bucket/workflow-data/output"


def model(run: str = "run-a", *, classes: tuple[str, ...] = ("disc",), home: str = HOME, **more: object) -> ListedModel:
    values = {
        "url": f"{home}/{run}/model",
        "run": run,
        "version": "1",
        "made": datetime(2026, 11, 21, tzinfo=UTC),
        "classes": classes,
        "preset": "tiny",
        "ap": 0.512,
        "subject": None,
    }
    return ListedModel(**{**values, **more})


def test_a_box_in_the_place_of_one_of_its_label_is_not_new():
    there = [Rectangle(0, 1, (0, 0, 100, 100))]
    nearly = Rectangle(0, 1, (0, 0, 100, 95))
    beside = Rectangle(0, 1, (0, 0, 100, 80))
    other_label, other_frame = Rectangle(0, 2, (0, 0, 100, 100)), Rectangle(1, 1, (0, 0, 100, 100))
    assert not_there_yet([nearly, beside, other_label, other_frame], there) == [beside, other_label, other_frame]


boxes = st.tuples(*[st.floats(0, 1000, width=32)] * 4).map(
    lambda four: (min(four[0], four[2]), min(four[1], four[3]), max(four[0], four[2]), max(four[1], four[3]))
)
rectangles = st.lists(st.builds(Rectangle, st.integers(0, 2), st.integers(0, 2), boxes), max_size=20)


@given(rectangles)
def test_nothing_is_new_the_second_time(found):
    assert not_there_yet(found, found) == []
    assert not_there_yet(found, []) == found


@given(boxes, boxes)
def test_iou_is_symmetric_and_between_nothing_and_all(one, other):
    assert iou(one, one) == 1
    assert iou(one, other) == pytest.approx(iou(other, one))
    assert 0 <= iou(one, other) <= 1 + 1e-9


def test_attributes_named_model_and_score_are_filled_in_a_form_that_they_take():
    given_attributes = [
        Attribute(1, "Model", "text"),
        Attribute(2, "score", "text"),
        Attribute(3, "score", "number", ("0", "100", "1")),
        Attribute(4, "model", "select", ("other",)),
        Attribute(5, "colour", "text"),
    ]
    assert attribute_values(given_attributes, "run-a", 0.876) == {1: "run-a", 2: "0.88", 3: "88"}


@pytest.mark.parametrize(
    ("input_type", "values", "value", "takes"),
    [
        ("text", (), "anything", True),
        ("checkbox", ("false",), "true", True),
        ("checkbox", ("false",), "1", False),
        ("radio", ("a", "b"), "b", True),
        ("select", ("a", "b"), "c", False),
        ("select", (), "", False),
        ("number", ("10", "90", "20"), "50", True),
        ("number", ("10", "90", "20"), "40", False),
        ("number", ("10", "90", "20"), "110", False),
        ("number", ("10", "90", "20"), "0.88", False),
        ("number", ("0", "1"), "0", False),
        ("number", ("0", "1", "0"), "0", False),
        ("of another release", (), "x", False),
    ],
)
def test_an_attribute_takes_what_cvat_takes(input_type: str, values: tuple[str, ...], value: str, takes: bool):
    assert Attribute(1, "score", input_type, values).takes(value) is takes
    try:
        theirs = attribute_value_validator(models.AttributeRequest("score", False, input_type, values=list(values)))
    except (ValueError, exceptions.ApiValueError):
        assert not takes
    else:
        assert theirs(value) is takes


def listed(*models: ListedModel, **more: object) -> dict[str, str]:
    return {name: each.title for name, each in functions(Choice(models, **more), [HOME]).items()}


def test_a_title_says_what_the_model_knows_how_good_it_is_and_where_it_comes_from():
    about = model(classes=("RBC", "WBC", "Platelets"), subject=Subject.project(3))
    assert listed(about) == {"run-a": "RBC, WBC, Platelets · AP 0.51 · project 3 · run-a · 2026-11-21"}
    unmeasured = model(classes=tuple(f"class {n}" for n in range(9)), ap=None)
    assert listed(unmeasured) == {"run-a": "class 0, class 1, class 2 and 6 more · run-a · 2026-11-21"}


def test_a_function_of_a_subject_is_named_after_it():
    one, two = Subject.tasks([8]), Subject.tasks([9, 8])
    found = model()
    names = functions(Choice((found,), newest=((one, found), (two, found))), [HOME])
    assert list(names) == ["task-8-newest", "tasks-8-9-newest", "run-a"]
    assert names["tasks-8-9-newest"].title.startswith("Tasks 8, 9, newest: disc")
    many = Subject.tasks(range(1, 101))
    (long, _) = functions(Choice((found,), newest=((many, found),)), [HOME])
    assert len(long) <= 63
    assert subject_title(many) == "tasks 1, 2, 3, 4 and 96 more"


ODD = ["Ünïcode run", "a" * 200, "UPPER", "-x-", "task-8-newest", "…", "a.b", "run a", "run_a"]


@pytest.mark.parametrize("run", ODD)
def test_every_name_is_one_that_cvat_and_nuclio_take(run: str):
    (name,) = listed(model(run))
    assert name.isascii()
    assert name == name.lower()
    assert 0 < len(name) <= 63
    assert name.replace("-", "").isalnum()
    assert name != "task-8-newest"


def test_runs_of_one_name_in_two_places_are_two_functions_and_none_of_them_changes_its_name():
    here, there = model(), model(home="s3://bucket/other")
    both, alone = listed(here, there), listed(there)
    assert set(both) == {"run-a", *alone}
    assert len(both) == 2
    assert len(listed(*map(model, ODD))) == len(ODD)


def test_what_a_class_is_called_does_no_harm():
    classes = ("<script>alert(1)</script>", "line\nbreak", "x" * 500)
    (title,) = listed(model(classes=classes)).values()
    assert "\n" not in title
    assert len(title) < 200


def test_the_newest_are_in_front_and_older_ones_follow():
    made = datetime(2026, 11, 21, tzinfo=UTC)
    old, new = model("old", made=made - timedelta(days=1)), model("new", made=made)
    assert list(listed(new, old, newest=((Subject.project(3), new),))) == ["project-3-newest", "new", "old"]


@pytest.mark.parametrize(
    ("lineage", "subject"),
    [
        (b'{"parameters": {"cvat-subject": "project:3"}}', Subject.project(3)),
        (b'{"parameters": {"cvat-subject": ""}}', None),
        (b'{"parameters": {"cvat-subject": 3}}', None),
        (b'{"parameters": {"cvat-subject": "project:../3"}}', None),
        (b'{"parameters": []}', None),
        (b"[]", None),
        (b"{", None),
        (b"\xff", None),
    ],
)
def test_a_lineage_names_its_subject_or_none(lineage: bytes, subject: Subject | None):
    assert subject_in(lineage) == subject
