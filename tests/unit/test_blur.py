from __future__ import annotations

import pytest
import torch
from torchvision.transforms.functional import gaussian_blur as of_torchvision

from boundaryflow.blur import gaussian_blur


@pytest.mark.parametrize(("radius", "sigma"), [(0, 0.1), (1, 0.4), (3, 1.0), (6, 2.0)])
@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (1, 3, 7, 9)])
def test_blur_is_that_of_torchvision_to_the_bit(radius: int, sigma: float, shape: tuple[int, ...]) -> None:
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = of_torchvision(images, [2 * radius + 1] * 2, [sigma] * 2)
    assert torch.equal(gaussian_blur(images, radius, sigma), expected)


def test_constant_stays() -> None:
    torch.testing.assert_close(gaussian_blur(torch.full((1, 2, 9, 9), 0.7), 3, 1.0), torch.full((1, 2, 9, 9), 0.7))
