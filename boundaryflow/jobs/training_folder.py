"""The folder of a trained denoiser: weights, model card, samples and measurements."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from boundaryflow.editing.sampling import draw_images
from boundaryflow.files import write_bytes
from boundaryflow.jobs.photos import tile
from boundaryflow.jobs.training_pictures import TrainingPictures
from boundaryflow.jobs.training_state import CARD
from boundaryflow.models import load_model
from boundaryflow.models.betas import USUAL
from boundaryflow.models.checkpoints import WEIGHTS
from boundaryflow.models.stated import SIDECAR
from boundaryflow.pixels import to_model_range, to_u8
from boundaryflow.rng import item_noise
from boundaryflow.runtime.device import device
from boundaryflow.sources.encoding import encode_png
from boundaryflow.training import DenoiserTraining, NetworkSettings, round_trip_psnr_db
from boundaryflow.training.quality import loss_of

_NUM_PICTURES = 16  # in the grid of samples, and on the round trip


def beta_schedule(network: NetworkSettings) -> dict[str, Any]:
    """The schedule as diffusers' scheduler_config.json has it."""
    return {**USUAL, "beta_schedule": network.schedule}


def write_folder(out: Path, training: DenoiserTraining, network: NetworkSettings, card: Mapping[str, Any]) -> None:
    """Write the averaged weights in half precision, the configuration, and the model card.

    Args:
        out: The folder.
        training: Training with the weights.
        network: Its architecture.
        card: Content of `training.json`.
    """
    scheduler = {
        **beta_schedule(network), "_class_name": "DDIMScheduler", "prediction_type": "epsilon", "clip_sample": False,
        "set_alpha_to_one": True, "steps_offset": 0, "timestep_spacing": "linspace",
    }  # fmt: skip
    files: dict[str, Any] = {
        CARD: card,  # first, as it marks the folder as written by this project
        "config.json": json.loads(training.network.to_json_string()),
        "scheduler_config.json": scheduler,
        SIDECAR: {"pixel_unshuffle": network.pixel_unshuffle},
    }
    for name, content in files.items():
        write_bytes(out / name, f"{json.dumps(content, indent=2)}\n".encode())
    write_bytes(out / WEIGHTS[0], save(training.averaged_half(), {"format": "pt"}))
    write_bytes(out / "README.md", _card_text(out.name, card).encode())


def measure(out: Path, pictures: TrainingPictures, seed: int) -> dict[str, float]:
    """Draw `samples.png` with the model of a folder, and measure the model on held-out pictures.

    Returns:
        Loss on these and on equally many training pictures, and the PSNR of the round trip.
    """
    model = load_model(out, device=device())
    ids = [f"sample-{index}" for index in range(_NUM_PICTURES)]
    noise = item_noise(seed, ids, "training", (model.channels, model.image_size, model.image_size))
    samples = tile(to_u8(draw_images(model, noise)), num_columns=4)
    write_bytes(out / "samples.png", encode_png(samples, {"synthetic": "true"}))
    held_out, seen = (
        to_model_range(torch.from_numpy(pictures.pixels[rows[: len(pictures.held_out)]]))
        for rows in (pictures.held_out, pictures.rows)
    )
    return {
        "held_out_loss": round(loss_of(model, held_out), 5),
        "trained_on_loss": round(loss_of(model, seen), 5),
        "round_trip_psnr_db": round_trip_psnr_db(model, held_out[:_NUM_PICTURES]),
    }


def _card_text(name: str, card: Mapping[str, Any]) -> str:
    """README.md, from the content of `training.json`."""
    data, network, settings = card["data"], card["network"], card["settings"]
    minutes = card["wall_time_s"] / 60
    per_image = card["images_seen"] / max(1, data["pictures"])
    rows = {
        "pictures": f"{data['pictures']:,} of `{data['source']}`; {data['held_out']:,} held out",
        "licence of the pictures": f"{data['licence']} (as stated by who trained it)",
        "images": f"{network['channels']} x {network['image_size']} x {network['image_size']}",
        "parameters": f"{card['parameters']:,}",
        "images seen": f"{card['images_seen']:,} (each picture {per_image:.1f} times), in {card['steps']:,} steps",
        "mirrored at random": "yes" if settings["mirror"] else "no",
        "time": f"{minutes:,.0f} min",
        "hardware and numbers": "; ".join(card["hardware"]),
        "training loss": f"{card['training_loss']}",
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    measured = "\n".join(
        f"| {m['images_seen']:,} | {m['wall_time_s'] / 60:.0f} | {m['held_out_loss']} | {m['trained_on_loss']} | "
        f"{m['round_trip_psnr_db']} |"
        for m in card["measured"]
    )
    return (
        "---\nlibrary_name: diffusers\ntags: [unconditional-image-generation, boundaryflow]\n---\n\n"
        f"# {name}\n\n"
        "An unconditional diffusion model on pixels, trained by `boundaryflow train-denoiser`. `training.json` has "
        f"all settings.{_start_text(card)}\n\n"
        f"| | |\n|---|---|\n{table}\n\n"
        "Measured with the weights of this folder, in float32:\n\n"
        "| images seen | min | held-out loss | loss on pictures trained on | round trip (PSNR, dB) |\n"
        f"|---|---|---|---|---|\n{measured or '| not measured yet | | | | |'}\n\n"
        "The loss is the weighted mean squared error of the predicted noise; lower on pictures trained on than on "
        "held-out ones means that the model memorises them. Round trip: held-out pictures to t = 500 and back, "
        "40 steps each way, without correction. `samples.png` is drawn from noise, 50 DDIM steps, not picked. Whether "
        "samples resemble single training pictures was not examined.\n"
    )


def _start_text(card: Mapping[str, Any]) -> str:
    """What the training started from, as a sentence; empty where it started from nothing."""
    start = card["started_from"]
    if start is None:
        return ""
    return (
        f" It was started from `{start['name']}` (sha256 {start['sha256']}), which had seen {start['images_seen']:,} "
        f"images; with the {card['images_seen']:,} of this training that makes "
        f"{start['images_seen'] + card['images_seen']:,}. Licence of the pictures of `{start['name']}`: "
        f"{start['licence']}."
    )
