"""Class-balanced batches."""

from collections import Counter
from itertools import islice
from types import SimpleNamespace

import numpy as np

from detr_job.data.batches import EpochBatches


def split(labels: list[list[int]]):
    class Images(SimpleNamespace):
        def __len__(self) -> int:
            return len(self.images)

    return Images(images=[SimpleNamespace(width=4, height=3, labels=np.array(own, np.int64)) for own in labels])


SPLIT = split([[0]] * 90 + [[0, 1]] * 5 + [[]] * 5)


def test_images_with_a_rare_class_are_shown_more_often():
    shown = Counter(int(i) for epoch in range(50) for i in EpochBatches(SPLIT, 4, 7, balance=True).epoch(epoch).ravel())
    rare, common, empty = (np.mean([shown[i] for i in part]) for part in (range(90, 95), range(90), range(95, 100)))
    assert 3 < rare / common < 6  # the square root of 95 / 5 is 4.4
    assert 0.8 < empty / common < 1.2


def test_repeated_images_of_an_epoch_are_augmented_differently_and_resume_exactly():
    whole = list(islice(iter(EpochBatches(SPLIT, 4, 7, balance=True)), 30))
    first_epoch = [key for batch in whole[:25] for key in batch]
    assert len(set(first_epoch)) == len(first_epoch) > len({key[1] for key in first_epoch})
    assert list(islice(iter(EpochBatches(SPLIT, 4, 7, start=11, balance=True)), 19)) == whole[11:]
