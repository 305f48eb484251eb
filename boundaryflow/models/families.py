"""Which network a state dict is of, and a plain word for those that cannot be edited with."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

from boundaryflow.errors import CheckpointError

Family = Literal["ddpm", "iddpm", "diffusers"]

_FAMILIES: tuple[tuple[Family, tuple[str, ...]], ...] = (
    ("ddpm", ("temb.dense.0.weight", "conv_in.weight", "norm_out.weight")),
    ("iddpm", ("time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight")),
    ("diffusers", ("time_embedding.linear_1.weight", "conv_in.weight", "conv_norm_out.weight")),
)
_USE = "use an unconditional diffusion model on pixels"
_REFUSED: tuple[tuple[str, str], ...] = (
    (r"^label_emb\.|class_embedding\.|^y_embedder\.", f"it is conditional on a class; {_USE}"),
    (r"transformer_blocks\.|attn2\.|^cond_stage_model\.|encoder_hid_proj", f"it is conditional on text; {_USE}"),
    (r"^first_stage_model\.|^model\.diffusion_model\.|quant_conv\.|^x_embedder\.|^pos_embed$",
     f"it works on latents of an autoencoder; {_USE}"),
    (r"synthesis\.|^mapping\.|to_?rgbs?\d*\.|^style\.\d|modulation\.|^generator\.|^discriminator\.|^noises\.",
     f"it is a GAN; {_USE}"),
    (r"^all_modules\.", "it is a score-SDE network (NCSN++, DDPM++), which is not known here; write it against the "
     "protocol EpsModel (docs/models.md)"),
    (r"map_layer0|map_noise", "it is a network of EDM (Karras et al. 2022), which has noise levels instead of "
     "timesteps and is not known here; write it against the protocol EpsModel (docs/models.md)"),
    (r"(^|\.)init_conv\.|(^|\.)downs\.0\.", "it is a network of denoising-diffusion-pytorch (lucidrains), which is "
     "not known here; write it against the protocol EpsModel (docs/models.md)"),
)  # fmt: skip


def family_of(names: Collection[str], where: object) -> Family:
    """The family of a network, from the names of its tensors.

    Args:
        names: Names of all tensors.
        where: For messages.

    Raises:
        CheckpointError: It is of no family known, or is no unconditional diffusion model on pixels.
    """
    for pattern, reason in _REFUSED:
        found = next((name for name in sorted(names) if re.search(pattern, name)), None)
        if found is not None:
            raise CheckpointError(f"model {where}: {reason} (tensor {found})")
    for family, marks in _FAMILIES:
        if all(mark in names for mark in marks):
            return family
    shown = ", ".join(sorted(names)[:3])
    raise CheckpointError(
        f"model {where}: of no family that is known (tensors {shown}, ...); known are DDPM, iDDPM / guided-diffusion "
        "and diffusers; write any other against the protocol EpsModel (docs/models.md)"
    )
