"""Images drawn from noise and their edits, on the Gaussian model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from boundaryflow.boundary import Boundaries, Calibration
from boundaryflow.editing.sampling import Sampler, drawn_noise, sample_ids
from boundaryflow.runtime.metering import Metered, Tally
from boundaryflow.runtime.samples import off_and_on, open_sampler, single_attributes
from tests.unit.editing.test_editor import GUIDED, SETTINGS, boundaries
from tests.unit.gaussian import GaussianModel


def sampler(method: str, tally: Tally | None = None) -> Sampler:
    model = Metered(GaussianModel(), tally or Tally())
    return open_sampler(model, GUIDED if method == "guided" else SETTINGS, 0, [])


def test_side_is_told_in_eps_space_where_the_classes_are_not_apart_in_h() -> None:
    drawn = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    whole = boundaries()
    h = whole.at_mixing_step["h"]
    together = replace(h, calibration=replace(h.calibration, mean_positive=-1.0))
    of_eps = Boundaries("hat", {"eps": whole.at_mixing_step["eps"], "h": together}, whole.noised)
    by_eps = whole.at_mixing_step["eps"].signed_distance(drawn) > whole.at_mixing_step["eps"].calibration.middle
    single = sampler("single_step")
    assert torch.equal(single.has(drawn, sample_ids(6), [of_eps])[:, 0], by_eps)
    assert single.has(drawn, sample_ids(6), [whole, of_eps]).shape == (6, 2)


@pytest.mark.parametrize("method", ["guided", "single_step"])
def test_several_changes_are_each_what_one_alone_is_and_cost_less(method: str) -> None:
    hat, beard = boundaries(), boundaries("a beard")
    ids = sample_ids(3)
    signs = [torch.tensor([[1.0], [-1.0], [1.0]]), torch.tensor([[-1.0], [1.0], [1.0]])]
    both, alone = Tally(), Tally()
    together, apart = sampler(method, both), sampler(method, alone)
    drawn = together.draw(drawn_noise(together.model, 0, ids))
    both.image_calls = 0
    changed = together.changed(drawn, ids, [([hat], signs[0]), ([beard], signs[1])])
    for found, of, towards in zip(changed, (hat, beard), signs, strict=True):
        torch.testing.assert_close(found, apart.changed(drawn, ids, [([of], towards)])[0])
    assert both.image_calls < alone.image_calls


def test_image_that_nothing_is_asked_of_stays_as_drawn() -> None:
    guided, ids = sampler("guided"), sample_ids(2)
    drawn = guided.draw(drawn_noise(guided.model, 0, ids))
    (changed,) = guided.changed(drawn, ids, [([boundaries()], torch.tensor([[0.0], [1.0]]))])
    assert torch.equal(changed[0], drawn[0])
    assert not torch.equal(changed[1], drawn[1])


def test_each_image_is_changed_to_the_other_side_whatever_the_strengths_of_edits() -> None:
    middle = Calibration(0.1, -0.1, 0.1, 0.9, 10)
    through_middle = tuple(replace(of, intercept=0.0, calibration=middle) for of in boundaries().noised)
    model, hat, ids = GaussianModel(), replace(boundaries(), noised=through_middle), sample_ids(8)
    made = off_and_on(model, GUIDED, 0, ids, [hat], [])
    other = off_and_on(model, replace(GUIDED, strengths=[0.5, 2.0]), 0, ids, [hat], [])
    assert all(torch.equal(made[name], other[name]) for name in made)
    assert 0 < made["has"].sum() < 8
    assert (made["changed"][:, 0] != made["drawn"]).flatten(1).any(1).all()


def test_only_attributes_that_an_edit_changes_alone_are_taken() -> None:
    edits = {
        "on": {"hat": "add"},
        "off": {"hat": "remove"},
        "both": {"beard": "add", "hat": "add"},
        "a": {"age": "flip"},
    }
    assert single_attributes(edits.values()) == ["age", "hat"]
