"""Where to move once: what the search sees at every timestep, and what single-step edits from there are worth.

    make bench NAME=mixing

Faces are walked up the whole schedule; at every timestep the default estimator of the single step is
fitted, held-out faces are moved there, each on one attribute, and compared with the exact
counterfactual. The rules of `mixing.rule` are read off curves measured as the pipeline measures
them. Writes benches/results/mixing.json, docs/images/mixing_step.png and the tables in
docs/mixing_step.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benches import machine, page
from benches.bench_quality import ROOT
from benches.quality.pictures import BATCH, Faces, Pictures, noise_of
from boundaryflow.avatars import ATTRIBUTES
from boundaryflow.boundary import Boundary, Estimator, Gram, fit_boundary
from boundaryflow.config import load_params
from boundaryflow.diffusion import EpsModel, Order, invert, timestep_path, walk_up
from boundaryflow.editing import Curves, choose_mixing_step, edit_at_strengths, measure_curves
from boundaryflow.editing.mixing_step import Rule
from boundaryflow.errors import BoundaryError
from boundaryflow.evaluation.attributes import target_reached
from boundaryflow.evaluation.counterfactual import counterfactual_recovery
from boundaryflow.evaluation.panel import Judges, load_judges
from boundaryflow.rng import item_noise
from boundaryflow.runtime.device import device
from boundaryflow.runtime.frozen_model import open_model

RESULT, PAGE = ROOT / "benches/results/mixing.json", ROOT / "docs/mixing_step.md"
PICTURE = ROOT / "docs/images/mixing_step.png"
STRENGTHS = (0.5, 1.0, 2.0, 4.0)
LOWEST, HIGHEST = 100, 800
HELD_OUT = 200
CURVES = ("radius_inverted", "radius_sampled", "auc_eps", "auc_h")
TOLERANCES: dict[Rule, tuple[float, ...]] = {
    "radius": (0.02, 0.05, 0.1, 0.2),
    "separability": (0.01, 0.02, 0.05, 0.1, 0.2),
}


def measure(num_images: int, num_train: int) -> dict[str, Any]:
    """The curves, and the edits at every timestep of the search."""
    params = load_params(ROOT).data["avatars"].model_dump(mode="json")
    model = open_model(str(ROOT / "data/pretrained/avatars64"), "auto")
    search, order, edit = params["mixing"], params["invert"]["order"], params["edit"]
    held_out = Faces.draw(1, HELD_OUT)
    path = timestep_path(model.schedule.num_train_timesteps - 1, search["num_steps"])
    train, test = Faces.draw(0, num_train), Faces.draw(2, num_images)
    curves = curves_of(model, train.take(range(search["num_images"])), path, search["num_sampled"], order)
    latents = inverted([train, held_out], model, path, order)
    judges = load_judges(ROOT / "data/pretrained/avatars64_judges", device())
    at: dict[int, Any] = {}
    for position, t in enumerate(path):
        if LOWEST <= t <= HIGHEST:
            hyperplanes = planes_at(latents[position], train, held_out, t, model, params["boundary"]["estimator"])
            edited = edits_at(model, test, path[: position + 1], hyperplanes, edit, order)
            at[t] = judged(judges, edited)
            print(f"t {t}: recovery {at[t]['recovery']:.3f}, success {at[t]['success']:.3f}", flush=True)
    return {
        "machine": machine.facts(),
        "settings": {"images": num_images, "num_train": num_train, "strengths": STRENGTHS, "search": search,
                     "estimator": params["boundary"]["estimator"], "eps_scale": edit["eps_scale"], "order": order},
        "curves": {
            "t": curves.timesteps,
            "radius_inverted": curves.radius_inverted.round(4).tolist(),
            "radius_sampled": curves.radius_sampled.round(4).tolist(),
            **{f"auc_{space}": curves.mean_auc(space).round(4).tolist() for space in ("eps", "h")},
        },
        "edits": at,
        "rules": rules(curves, model, at),
    }  # fmt: skip


def curves_of(model: EpsModel, faces: Pictures, path: Sequence[int], num_sampled: int, order: Order) -> Curves:
    """What the pipeline's search measures."""
    shape = (model.channels, model.image_size, model.image_size)
    return measure_curves(
        model,
        faces.x_0,
        item_noise(0, [f"sample-{index:04d}" for index in range(num_sampled)], "mixing", shape),
        path,
        {name: has.astype(np.float64) for name, has in faces.has.items()},
        order=order,
        batch_size=BATCH,
        seed=0,
    )


def inverted(sets: Sequence[Faces], model: EpsModel, path: Sequence[int], order: Order) -> list[Tensor]:
    """For every timestep [N,D] float16 of all faces."""
    found: list[list[Tensor]] = [[] for _ in path]
    for faces in sets:
        for chunk in faces.x_0.split(BATCH):
            for position, (_t, x_t, _eps, _h) in enumerate(walk_up(model, chunk, path, order=order)):
                found[position].append(x_t.flatten(1).half())
    return [torch.cat(parts) for parts in found]


def planes_at(
    latents: Tensor, train: Faces, held_out: Faces, t: int, model: EpsModel, estimator: Estimator
) -> dict[str, Boundary]:
    """The hyperplane of every attribute in ε-space."""
    gram, num = Gram.of(latents), len(train.ids)
    return {
        name: fit_boundary(
            gram, np.concatenate([train.has[name], held_out.has[name]]), np.arange(num), np.arange(num, len(latents)),
            space="eps", t=t, attribute=name, model_sha256=model.sha256, estimator=estimator,
        )[0]
        for name in ATTRIBUTES
    }  # fmt: skip


def edits_at(
    model: EpsModel,
    test: Faces,
    path: Sequence[int],
    hyperplanes: Mapping[str, Boundary],
    edit: Mapping[str, Any],
    order: Order,
) -> dict[str, tuple[Faces, Tensor]]:
    """Attribute to the faces that are edited on it, and [N,K,3,64,64] in model range."""
    found: dict[str, tuple[Faces, Tensor]] = {}
    for column, name in enumerate(ATTRIBUTES):
        some = test.take(range(column, len(test.ids), len(ATTRIBUTES)))
        inversion = invert(model, some.x_0, path, keep_residuals=True, eta=edit["eta"], order=order)
        found[name] = some, edit_at_strengths(
            model, inversion, {"eps": [hyperplanes[name]]}, some.directions([name]), STRENGTHS,
            scales={"eps": edit["eps_scale"]}, h_window=(1.0, 1.0), eta=edit["eta"],
            noise=lambda t, faces=some: noise_of(faces, t),
        )  # fmt: skip
    return found


def judged(judges: Judges, edited: Mapping[str, tuple[Faces, Tensor]]) -> dict[str, Any]:
    """Each attribute at its strength of the largest mean recovery, then the mean of the attributes."""
    recovery: dict[str, float] = {}
    success: dict[str, float] = {}
    for name, (faces, pictures) in edited.items():
        truth, before = faces.counterfactuals([name])[0], (faces.x_0 + 1) / 2
        signs = torch.zeros(len(faces.ids), len(judges.attributes))
        signs[:, judges.attributes.index(name)] = faces.directions([name])[:, 0]
        curve: list[tuple[float, float]] = []
        for of_strength in pictures.unbind(1):
            after = ((of_strength + 1) / 2).clamp(0, 1)
            reached = float(target_reached(judges.probabilities(after), signs).float().mean())
            curve.append((float(np.median(counterfactual_recovery(before, after, truth).numpy())), reached))
        recovery[name], success[name] = (round(value, 4) for value in max(curve))
    return {
        "recovery": round(float(np.mean(list(recovery.values()))), 4),
        "success": round(float(np.mean(list(success.values()))), 4),
        "recovery_of": recovery,
        "success_of": success,
    }


def rules(curves: Curves, model: EpsModel, at: Mapping[int, Any]) -> list[dict[str, Any]]:
    """What each rule chooses, and what edits are worth there."""
    best = max(of["recovery"] for of in at.values())
    found: list[dict[str, Any]] = []
    for rule, tolerances in TOLERANCES.items():
        for tolerance in tolerances:
            try:
                t = choose_mixing_step(curves, model.schedule, rule, tolerance=tolerance, min_t=LOWEST, max_t=HIGHEST)
            except BoundaryError:  # holds nowhere
                found.append({"rule": rule, "tolerance": tolerance, "t": None, "share_of_best": None})
                continue
            share = round(at[t]["recovery"] / best, 4)
            found.append({"rule": rule, "tolerance": tolerance, "t": t, "share_of_best": share})
    return found


def tables(found: dict[str, Any]) -> str:
    """The page's tables."""
    curves = found["curves"]
    of_timestep = [
        [t, *(f"{curves[name][curves['t'].index(int(t))]:.3f}" for name in CURVES),
         f"{edit['recovery']:.3f}", f"{edit['success']:.2f}"]
        for t, edit in ((str(t), edit) for t, edit in found["edits"].items())
    ]  # fmt: skip
    of_rule = [
        [rule["rule"], str(rule["tolerance"]), "nowhere" if rule["t"] is None else str(rule["t"]),
         "" if rule["t"] is None else f"{rule['share_of_best']:.2f}"]
        for rule in found["rules"]
    ]  # fmt: skip
    header = ["timestep", "radius, inverted", "radius, sampled", "AUC in ε", "AUC in h", "recovery", "success"]
    return "\n\n".join(
        [
            page.markdown_table(header, of_timestep),
            page.markdown_table(["rule", "tolerance", "chooses", "recovery there, of the best"], of_rule),
        ]
    )


def draw(found: dict[str, Any]) -> None:
    """Three panels over the timesteps."""
    curves, edits = found["curves"], {int(t): edit for t, edit in found["edits"].items()}
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    radius, auc, worth = figure.subplots(1, 3)
    radius.plot(curves["t"], curves["radius_sampled"], label="sampled")
    radius.plot(curves["t"], curves["radius_inverted"], label="inverted")
    radius.axhline(1, color="grey", linewidth=0.8)
    radius.set(title="radius / sqrt(d)", xlabel="timestep")
    for space, label in (("eps", "ε-space"), ("h", "h-space")):
        auc.plot(curves["t"], curves[f"auc_{space}"], label=label)
    auc.set(title="AUC, mean of the attributes", xlabel="timestep")
    worth.plot(list(edits), [edit["recovery"] for edit in edits.values()], label="recovery")
    worth.plot(list(edits), [edit["success"] for edit in edits.values()], label="success")
    worth.set(title="single-step edits from there", xlabel="timestep")
    for axes in (radius, auc, worth):
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})


def main() -> None:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=96, help="faces to edit, each on one attribute")
    parser.add_argument("--num-train", type=int, default=400, help="faces to fit on")
    asked = parser.parse_args()
    found = measure(asked.images, asked.num_train)
    RESULT.write_text(json.dumps(found) + "\n")
    draw(found)
    page.fill(PAGE, "table", tables(found))
    print(f"written: {RESULT.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}, {PICTURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
