"""Batches as a function of the step."""

import torch

from training.sampler import batch_indices


def test_every_image_is_seen_once_an_epoch_when_the_batch_does_not_divide_it() -> None:
    row = torch.cat([batch_indices(3, step, batch=16, images=50) for step in range(25)])
    for epoch in range(8):
        assert sorted(row[epoch * 50 : epoch * 50 + 50].tolist()) == list(range(50))


def test_a_batch_may_be_larger_than_the_set() -> None:
    assert len(batch_indices(0, 2, batch=70, images=32)) == 70


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, second = (batch_indices(0, step, batch=50, images=50).tolist() for step in (0, 1))
    other = batch_indices(1, 0, batch=50, images=50).tolist()
    assert first != second != other != first


def test_a_step_has_the_same_batch_whatever_came_before() -> None:
    alone = batch_indices(5, 11, batch=16, images=50)
    for step in range(11):
        batch_indices(5, step, batch=16, images=50)
    assert torch.equal(alone, batch_indices(5, 11, batch=16, images=50))
