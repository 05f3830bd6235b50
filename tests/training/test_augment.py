"""Batched augmentation against a plain loop with slices."""

import numpy as np
import torch

from training.augment import crop_and_flip, draw_crops, normalise


def test_crops_and_flips_equal_those_of_a_loop() -> None:
    x = torch.randn(32, 3, 8, 10, generator=torch.Generator().manual_seed(0))
    crops = draw_crops(32, 4, True, torch.Generator().manual_seed(1))
    cut = crop_and_flip(x, 4, crops)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)))
    for image in range(32):
        top, left = int(crops.top[image]), int(crops.left[image])
        expected = padded[image, :, top : top + 8, left : left + 10]
        if crops.mirrored[image]:
            expected = expected[:, :, ::-1]
        assert np.array_equal(cut[image].numpy(), expected)


def test_draws_cover_every_offset_and_both_sides() -> None:
    crops = draw_crops(2000, 4, True, torch.Generator().manual_seed(0))
    assert set(crops.top.flatten().tolist()) == set(crops.left.flatten().tolist()) == set(range(9))
    assert 0.45 < crops.mirrored.float().mean() < 0.55


def test_flip_can_be_left_out() -> None:
    assert not draw_crops(100, 4, False, torch.Generator().manual_seed(0)).mirrored.any()


def test_normalise_subtracts_a_mean_per_pixel() -> None:
    images = torch.randint(256, (2, 4, 4, 3), dtype=torch.uint8)
    mean, std = torch.rand(3, 4, 4), torch.rand(3, 1, 1) + 0.5
    expected = (images.permute(0, 3, 1, 2) / 255 - mean) / std
    assert torch.allclose(normalise(images, mean, std), expected, atol=1e-6)
