"""Values of a data set that must agree with one another, wherever they are written."""

from __future__ import annotations

from collections.abc import Iterator

from stages.params.sections import (
    AvatarSource,
    ColumnRule,
    DatasetParams,
    PromptRule,
    Section,
    ThresholdRule,
    TruthSource,
    ValueRule,
)
from stages.params.wording import nearest

_RULES: dict[str, tuple[type[Section], ...]] = {
    "clip": (PromptRule,),
    "csv": (ValueRule, ThresholdRule, ColumnRule),
    "avatars": (ColumnRule, PromptRule),
}


def disagreements(dataset: DatasetParams) -> Iterator[str]:
    """Lines `key: what is wrong`, the key within the data set."""
    yield from _about_images(dataset)
    yield from _about_labels(dataset)
    yield from _about_path(dataset)
    yield from _about_edits(dataset)
    if dataset.paper_mode:
        yield from _about_paper_mode(dataset)


def _about_images(dataset: DatasetParams) -> Iterator[str]:
    ingest, split = dataset.ingest, dataset.ingest.split
    if split.val + split.test >= 1:
        yield "ingest.split: val and test leave nothing to train on; their sum must be under 1"
    if split.val == 0:
        yield "ingest.split.val: is 0, must be above; boundaries are calibrated on these images"
    if split.test == 0 and dataset.edit.split == "test":
        yield "ingest.split.test: is 0, but edit.split is test; raise it, or edit another split"
    if isinstance(ingest.source, AvatarSource):
        if ingest.channels != 3:
            yield f"ingest.channels: is {ingest.channels}, must be 3; avatars are RGB"
        yield from _about_avatars(ingest.source)
    elif dataset.evaluate.counterfactuals:
        yield "evaluate.counterfactuals: is true, must be false unless ingest.source is of kind avatars"


def _about_avatars(source: AvatarSource) -> Iterator[str]:
    from boundaryflow.avatars import ATTRIBUTES, FACTORS, sample_avatars

    key, names, seen, wrong = "ingest.source", [*ATTRIBUTES, *FACTORS], set[frozenset[str]](), False
    for name in source.rates:
        if name not in ATTRIBUTES:
            yield f"{key}.rates: the renderer has no attribute {name!r}{nearest(name, ATTRIBUTES)}"
    for pair in source.correlations:
        both = pair.split("~")
        unknown = next((name for name in both if name not in names), None)
        if len(both) != 2 or both[0] == both[1]:
            line = f"{pair!r} must be two names joined by ~, such as hat~beard"
        elif unknown is not None:
            line = f"{pair!r}: the renderer has nothing named {unknown!r}{nearest(unknown, names)}"
        elif frozenset(both) in seen:
            line = f"{pair!r} is stated twice; keep one"
        else:
            seen.add(frozenset(both))
            continue
        wrong = True
        yield f"{key}.correlations: {line}"
    if source.correlations and not wrong:
        import numpy as np

        pairs = {(a, b): value for (a, _, b), value in ((p.partition("~"), v) for p, v in source.correlations.items())}
        try:
            sample_avatars(1, np.random.default_rng(0), correlations=pairs)
        except ValueError:
            yield f"{key}.correlations: contradict one another, no distribution has them all; bring some nearer to 0"


def _about_labels(dataset: DatasetParams) -> Iterator[str]:
    source = dataset.label.source
    if isinstance(source, TruthSource) and not isinstance(dataset.ingest.source, AvatarSource):
        yield "label.source: kind is 'avatars', which knows faces of ingest.source kind avatars only; use csv or clip"
        return
    for name, rule in dataset.label.attributes.items():
        key = f"label.attributes.{name}"
        if not isinstance(rule, _RULES[source.kind]):
            yield (
                f"{key}: does not fit source kind {source.kind!r}: clip needs positive and negative prompts, csv a "
                "column, avatars column: null or prompts"
            )
        if isinstance(rule, ThresholdRule) and rule.above < rule.below:
            yield f"{key}.above: is {rule.above:g}, must not be under below ({rule.below:g}); a number would be both"
        if isinstance(source, TruthSource):
            from boundaryflow.avatars import ATTRIBUTES

            if name not in ATTRIBUTES:
                yield f"{key}: the renderer has no such attribute{nearest(name, ATTRIBUTES)}"


def _about_path(dataset: DatasetParams) -> Iterator[str]:
    mixing, num_steps = dataset.mixing, dataset.invert.num_steps
    if mixing.min_t > mixing.max_t:
        yield f"mixing.min_t: is {mixing.min_t}, must not be above max_t ({mixing.max_t})"
    highest, key = (mixing.fixed_t, "fixed_t") if mixing.rule == "fixed" else (mixing.max_t, "max_t")
    if highest is None:
        yield "mixing.fixed_t: is null, must be a timestep in [1, 999] with rule: fixed"
    elif num_steps > highest + 1:
        yield (
            f"invert.num_steps: is {num_steps}, but from 0 to mixing.{key} ({highest}) there are {highest + 1} "
            "timesteps; lower it"
        )


def _about_edits(dataset: DatasetParams) -> Iterator[str]:
    edit = dataset.edit
    if edit.h_window[0] < edit.h_window[1]:
        yield "edit.h_window: must go from the noisy end down, such as [1.0, 0.3]"
    for space, scale in (("eps", edit.eps_scale), ("h", edit.h_scale)):
        if scale > 0 and space not in dataset.boundary.spaces:
            yield f"edit.{space}_scale: is {scale}, but boundary.spaces has no {space}; add it or set 0"
    twice = sorted({s for s in edit.strengths if edit.strengths.count(s) > 1})
    if twice:
        yield f"edit.strengths: {twice[0]:g} is there twice; keep one"
    known = list(dataset.label.attributes)
    for name, targets in edit.edits.items():
        if not targets:
            yield f"edit.edits.{name}: changes nothing; say which attribute, such as {{{known[0]}: flip}}, or remove it"
        for attribute in targets:
            if attribute not in known:
                yield f"edit.edits.{name}: attribute {attribute!r} is labelled by nobody{nearest(attribute, known)}"


def _about_paper_mode(dataset: DatasetParams) -> Iterator[str]:
    for space in ("eps", "h"):
        if space not in dataset.boundary.spaces:
            yield f"boundary.spaces: has no {space}; paper_mode moves in both spaces, add it or set paper_mode: false"
    for name, targets in dataset.edit.edits.items():
        if len(targets) > 1:
            yield (
                f"edit.edits.{name}: has {len(targets)} attributes; paper_mode edits one at a time, split the edit or "
                "set paper_mode: false"
            )
