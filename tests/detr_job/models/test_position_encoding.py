"""Sine encodings are the published ones, padding included; learned ones say where they end."""

import pytest
import torch

from detr_job.errors import JobError
from detr_job.models.position_encoding import LearnedPositionEncoding, SinePositionEncoding

CPU = torch.device("cpu")


def test_sines_are_the_published_ones():
    padding = torch.zeros(1, 3, 5, dtype=torch.bool)
    padding[:, -1] = True
    padding[:, :, -1] = True
    encoding = SinePositionEncoding(256)(3, 5, padding, CPU)
    assert encoding.shape == (1, 3, 5, 256)
    channels = [0, 1, 2, 127, 128, 129, 130, 255]
    golden = (0, 1, -0.74609, 1, -1, 0, -0.80707, 1)
    assert encoding[0, 1, 2, channels].tolist() == pytest.approx(golden, abs=1e-5)
    assert encoding[0, 0, 4, [0, 128]].tolist() == pytest.approx((0, 0), abs=1e-5)


def test_an_image_without_padding_needs_no_mask():
    sine = SinePositionEncoding(64)
    masked = sine(7, 9, torch.zeros(2, 7, 9, dtype=torch.bool), CPU)
    assert torch.equal(sine(7, 9, None, CPU).expand(2, -1, -1, -1), masked)


def test_padding_does_not_move_the_positions_of_an_image():
    padding = torch.ones(1, 8, 12, dtype=torch.bool)
    padding[:, :5, :7] = False
    sine = SinePositionEncoding(64)
    assert torch.equal(sine(8, 12, padding, CPU)[:, :5, :7], sine(5, 7, None, CPU))


def test_learned_encodings_are_columns_then_rows():
    learned = LearnedPositionEncoding(8)
    cell = learned(3, 4, None, CPU)[0, 2, 1]
    assert torch.equal(cell[:4], learned.col_embed.weight[1])
    assert torch.equal(cell[4:], learned.row_embed.weight[2])


def test_a_map_beyond_the_learned_encodings_is_refused_in_words():
    with pytest.raises(JobError, match="51 x 4: use smaller images"):
        LearnedPositionEncoding(8)(51, 4, None, CPU)
