"""The guided edit on the Gaussian model, whose bottleneck is the mean of each channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boundaryflow.boundary import Boundary, Calibration
from boundaryflow.editing import Guidance, NoisedSource, guided_edit, observe_noised
from boundaryflow.editing.guided import _smallest_step
from boundaryflow.editing.hyperplanes import targets_by_timestep
from boundaryflow.rng import item_noise
from tests.unit.gaussian import GaussianModel

PATH = (0, 30, 80, 150, 250)
PLAIN = Guidance(
    certainty=0.5,
    gain=1.0,
    tweedie_projection=False,
    preserve=0.0,
    preserve_residual=0.0,
    max_step=0.0,
    soft_threshold=0.0,
    region=0.0,
    num_draws=1,
    num_iterations=1,
    stride=1,
)


def images(num: int = 3) -> Tensor:
    return 0.5 * torch.randn(num, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def source(num: int = 3, num_noises: int = 1) -> NoisedSource:
    ids = [str(index) for index in range(num)]
    return observe_noised(
        GaussianModel(),
        images(num),
        PATH,
        lambda t, draw: item_noise(0, ids, f"{t} {draw}", (3, 4, 4)),
        num_noises=num_noises,
    )


def hyperplanes(channel: int = 0, at: Sequence[int] = PATH[1:], far: float = 0.5) -> list[Boundary]:
    """The mean of one channel, with classes at plus and minus `far`."""
    normal = torch.zeros(3)
    normal[channel] = 1.0
    calibration = Calibration(far, -far, 0.1, 1.0, 20)
    return [Boundary(normal, 0.0, "h", t, f"channel {channel}", "f" * 64, calibration) for t in at]


def means(edited: Tensor) -> Tensor:
    return edited.mean((-2, -1))


def test_strength_zero_and_no_direction_return_the_input_bit_for_bit() -> None:
    directions = torch.tensor([[1.0], [0.0], [-1.0]])
    edited = guided_edit(GaussianModel(), source(), [hyperplanes()], directions, [0.0, 1.0], PLAIN)
    assert torch.equal(edited[:, 0], images())
    assert torch.equal(edited[1, 1], images()[1])
    assert not torch.equal(edited[0, 1], images()[0])


def test_noise_is_drawn_once_for_any_number_of_strengths() -> None:
    asked: list[tuple[int, int]] = []

    def noise(t: int, draw: int) -> Tensor:
        asked.append((t, draw))
        return item_noise(0, ["0", "1", "2"], f"{t} {draw}", (3, 4, 4))

    observed = observe_noised(GaussianModel(), images(), PATH, noise)
    edited = guided_edit(GaussianModel(), observed, [hyperplanes()], torch.ones(3, 1), [0.5, 1.0], PLAIN)
    assert asked == [(t, 0) for t in PATH]
    expected = guided_edit(GaussianModel(), source(), [hyperplanes()], torch.ones(3, 1), [0.5, 1.0], PLAIN)
    assert torch.equal(edited, expected)


def test_edit_goes_the_way_that_is_asked_for() -> None:
    directions = torch.tensor([[1.0], [1.0], [-1.0]])
    edited = guided_edit(GaussianModel(), source(), [hyperplanes()], directions, [1.0, -1.0], PLAIN)
    moved = means(edited)[:, :, 0] - means(images())[:, None, 0]
    assert (moved[:, 0] * directions[:, 0] > 0.1).all()
    assert (moved[:, 1] * directions[:, 0] < -0.1).all()


def test_other_channels_do_not_move() -> None:
    edited = guided_edit(GaussianModel(), source(), [hyperplanes()], torch.ones(3, 1), [1.0], PLAIN)
    torch.testing.assert_close(edited[:, 0, 1:], images()[:, 1:], atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=20)
@given(weak=st.floats(0.1, 1.4), more=st.floats(0.1, 1.0))
def test_more_strength_goes_farther(weak: float, more: float) -> None:
    edited = guided_edit(GaussianModel(), source(), [hyperplanes()], torch.ones(3, 1), [weak, weak + more], PLAIN)
    assert (means(edited)[:, 1, 0] > means(edited)[:, 0, 0]).all()


def test_image_that_is_there_already_stays() -> None:
    edited = guided_edit(GaussianModel(), source(), [hyperplanes(far=0.0001)], torch.ones(3, 1), [1.0], PLAIN)
    there = means(images())[:, 0] > 0.3
    torch.testing.assert_close(edited[there, 0], images()[there], atol=1e-3, rtol=0)


def test_two_attributes_are_both_set() -> None:
    directions = torch.tensor([[1.0, -1.0]]).repeat(3, 1)
    edited = guided_edit(GaussianModel(), source(), [hyperplanes(0), hyperplanes(1)], directions, [1.0], PLAIN)
    assert (means(edited)[:, 0, 0] > means(images())[:, 0]).all()
    assert (means(edited)[:, 0, 1] < means(images())[:, 1]).all()


def test_held_attribute_that_goes_with_the_edited_one_moves_less() -> None:
    oblique, ones = hyperplanes(1), torch.ones(3, 1)
    both = torch.tensor([0.8, 0.6, 0.0])  # the edited attribute goes with the held one
    edited_planes = [replace(hyperplane, normal=both) for hyperplane in hyperplanes()]
    moved = []
    for hold in (0.0, 1.0, 100.0):
        guidance = replace(PLAIN, preserve=hold)
        edited = guided_edit(GaussianModel(), source(), [edited_planes], ones, [1.0], guidance, preserved=[oblique])
        moved.append(float((means(edited)[:, 0, 1] - means(images())[:, 1]).abs().mean()))
    assert moved[0] > moved[1] > moved[2]
    assert moved[2] < 0.9 * moved[0]


def test_what_does_not_go_with_the_edited_attribute_moves_less() -> None:
    """The pattern says that the first channel alone changes with the attribute, the normal looks at another as well."""
    oblique, ones = torch.tensor([0.8, 0.6, 0.0]), torch.ones(3, 1)
    planes = [replace(plane, normal=oblique, pattern=torch.tensor([2.0, 0.0, 0.0])) for plane in hyperplanes()]
    moved: list[Tensor] = []
    for penalty in (0.0, 1.0, 100.0):
        guidance = replace(PLAIN, preserve_residual=penalty)
        edited = guided_edit(GaussianModel(), source(), [planes], ones, [1.0], guidance)
        moved.append((means(edited)[:, 0] - means(images())).abs().mean(0))
    assert moved[0][1] > moved[1][1] > moved[2][1]
    assert moved[2][1] < 0.5 * moved[0][1]
    assert moved[2][0] > moved[0][0]  # which takes the attribute as far, by the channel that goes with it


@pytest.mark.parametrize("pattern", [None, torch.tensor([-1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])])
def test_pattern_that_is_unknown_or_leads_nowhere_is_not_used(pattern: Tensor | None) -> None:
    planes = [replace(plane, pattern=pattern) for plane in hyperplanes()]
    guidance = replace(PLAIN, preserve_residual=3.0)
    edited = guided_edit(GaussianModel(), source(), [planes], torch.ones(3, 1), [1.0], guidance)
    plain = guided_edit(GaussianModel(), source(), [hyperplanes()], torch.ones(3, 1), [1.0], PLAIN)
    assert torch.equal(edited, plain)


def test_residual_of_two_attributes_leaves_out_what_either_explains() -> None:
    """[E,D] patterns that both cross both hyperplanes: any sum of the two is explained, nothing else is."""
    normals = torch.eye(3)[:2]
    patterns = torch.tensor([[1.0, 0.3, 0.5], [0.2, 2.0, -1.0]])
    edited = [replace(hyperplanes(c, (30,))[0], normal=normals[c], pattern=patterns[c]) for c in range(2)]
    targets = targets_by_timestep(
        [[plane] for plane in edited], [], (30,), 0.0, space="h", num_dimensions=3, like=normals
    )[30]
    before, change = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0.7, -0.4])
    explained = targets.residual(before, before + change @ patterns)
    torch.testing.assert_close(explained, torch.zeros(4, 3), atol=1e-5, rtol=0)
    undone = targets.residual(before, before + torch.tensor([0.0, 0.0, 0.5]))
    torch.testing.assert_close(undone, torch.tensor([0.0, 0.0, -0.5]).expand(4, -1), atol=1e-5, rtol=0)


def test_residual_is_left_where_an_edited_attribute_has_no_hyperplane() -> None:
    """Its change, made at other timesteps, would be undone there."""
    first, second = (
        [replace(plane, pattern=plane.normal) for plane in hyperplanes(channel, timesteps)]
        for channel, timesteps in ((0, (30, 80)), (1, (30,)))
    )
    targets = targets_by_timestep([first, second], [], PATH, 0.0, space="h", num_dimensions=3, like=torch.zeros(1))
    assert targets[30].explained is not None
    features = torch.eye(3)
    moves, weight, penalties = targets[80].restoring(features, features + 1, preserve=0.0, preserve_residual=1.0)
    assert (targets[80].explained, moves.shape, weight.shape, penalties) == (None, (3, 0, 3), (3, 0), ())


def test_mask_keeps_the_rest_as_it_is() -> None:
    mask = torch.zeros(3, 4, 4)
    mask[:, :2] = 1
    edited = guided_edit(GaussianModel(), source(), [hyperplanes()], torch.ones(3, 1), [1.0], PLAIN, mask=mask)
    assert torch.equal(edited[:, 0, :, 2:], images()[:, :, 2:])
    assert not torch.equal(edited[:, 0, :, :2], images()[:, :, :2])


def test_step_is_no_longer_than_max_step() -> None:
    """With one noise level the edit of a Gaussian, whose prediction does not depend on the change, is the step."""
    directions, plane = torch.ones(3, 1), hyperplanes(at=(0,))
    far = guided_edit(GaussianModel(), source(), [plane], directions, [1.0], PLAIN)[:, 0] - images()
    size = far.flatten(1).square().mean(1).sqrt()
    most = 0.5 * float(size.min() + size.max())
    limited = replace(PLAIN, max_step=most)
    near = guided_edit(GaussianModel(), source(), [plane], directions, [1.0], limited)[:, 0] - images()
    wanted = far * (most / size).clamp(max=1)[:, None, None, None]
    assert float(size.min()) < most < float(size.max())
    torch.testing.assert_close(near, wanted, atol=1e-5, rtol=1e-4)


def test_small_changes_fade_out() -> None:
    sparse = replace(PLAIN, soft_threshold=100.0)
    edited = guided_edit(GaussianModel(), source(), [hyperplanes()], torch.ones(3, 1), [1.0], sparse)
    torch.testing.assert_close(edited[:, 0], images())


def test_draws_are_averaged_and_the_same_for_every_strength() -> None:
    guidance = replace(PLAIN, num_draws=2, num_iterations=2, tweedie_projection=True)
    twice = source(num_noises=4)
    edited = guided_edit(GaussianModel(), twice, [hyperplanes()], torch.ones(3, 1), [0.7, 0.7], guidance)
    assert torch.equal(edited[:, 0], edited[:, 1])
    alone = guided_edit(GaussianModel(), twice.take([1]), [hyperplanes()], torch.ones(1, 1), [0.7], guidance)
    torch.testing.assert_close(alone[0], edited[1, :1])


def test_plane_off_the_path_is_refused() -> None:
    with pytest.raises(ValueError, match=r"hyperplanes at timesteps \[77\], which are not on the path"):
        guided_edit(GaussianModel(), source(), [hyperplanes(at=(77,))], torch.ones(3, 1), [1.0], PLAIN)


def test_what_is_lost_by_rounding_alone_is_not_followed() -> None:
    """Its direction is anyone's: a weight of 0 is as good as nothing held, and weights near 0 are near to that."""
    generator = torch.Generator().manual_seed(4)
    gradients, missing = torch.randn(3, 2, 1, 3, 3, generator=generator), torch.randn(3, 2, generator=generator)
    alone = _smallest_step(gradients[:, :1], missing[:, :1], torch.zeros(3, 0), ())
    torch.testing.assert_close(_smallest_step(gradients, missing, torch.zeros(3, 1), (2.0,)), alone)
    torch.testing.assert_close(_smallest_step(gradients, missing, torch.full((3, 1), 1e-6), (2.0,)), alone)


def test_smallest_step_solves_its_own_problem() -> None:
    generator = torch.Generator().manual_seed(3)
    gradients, missing = torch.randn(2, 3, 1, 3, 3, generator=generator), torch.randn(2, 3, generator=generator)
    weight, penalties = torch.tensor([[1.0, 0.5], [0.25, 1.0]]), torch.tensor([2.0, 0.3])
    step = _smallest_step(gradients, missing, weight, penalties.tolist())
    flat = gradients.flatten(2)

    def cost(candidate: Tensor) -> Tensor:
        lack = (flat[:, 1:] @ candidate.flatten(1)[..., None])[..., 0] - missing[:, 1:]
        unit = (flat[:, 1:] ** 2).sum(2)
        return (candidate**2).flatten(1).sum(1) + (penalties * weight * lack**2 / unit).sum(1)

    reached = (flat[:, :1] @ step.flatten(1)[..., None])[..., 0]
    torch.testing.assert_close(reached, missing[:, :1], atol=1e-4, rtol=1e-4)
    for seed in range(20):  # any other step that reaches it costs more
        other = 0.1 * torch.randn(2, 9, generator=torch.Generator().manual_seed(seed))
        along = flat[:, 0] / flat[:, 0].norm(dim=1, keepdim=True)
        other = other - (other * along).sum(1, keepdim=True) * along
        assert (cost(step + other.reshape(step.shape)) > cost(step)).all()


def test_stride_visits_the_noisiest_level_and_every_other_below_it() -> None:
    assert replace(PLAIN, stride=1).path([10, 20, 30, 40]) == (10, 20, 30, 40)
    assert replace(PLAIN, stride=2).path([10, 20, 30, 40]) == (20, 40)
    assert replace(PLAIN, stride=2).path([10, 20, 30, 40, 50]) == (10, 30, 50)
    assert replace(PLAIN, stride=9).path([10, 20]) == (20,)
