"""`UNet2DModel` of diffusers and its scheduler, from a folder that save_pretrained wrote."""

from pathlib import Path

import torch

from tdpm_cli.config.types import Value
from tdpm_cli.convert.diffusers_unet import CONVENTIONS, DEFAULTS, LAYOUT, PREDICTIONS
from tdpm_cli.convert.external import ImportedModel, Tensors, read_tensors
from tdpm_cli.convert.layout import convert_tensors
from tdpm_cli.models.backbones.unet import UNet
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import Json, read_json

__all__ = ["read"]

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
SCHEDULES = {"linear": "linear", "scaled_linear": "quadratic", "squaredcos_cap_v2": "cosine", "sigmoid": "sigmoid"}
ONLY: dict[str, list[Value]] = {  # the values that our U-Net supports
    "center_input_sample": [False], "time_embedding_type": ["positional"], "act_fn": ["silu", "swish"],
    "mid_block_scale_factor": [1], "add_attention": [True], "class_embed_type": [None], "time_embedding_dim": [None],
    "downsample_type": ["conv"], "upsample_type": ["conv"], "mid_block_type": ["UNetMidBlock2D"],
    "resnet_time_scale_shift": ["default"],
}  # fmt: skip


def read(path: Path, height: int) -> ImportedModel:
    """Read the U-Net of a pipeline's folder, with the schedule of its scheduler, or a U-Net's own folder."""
    if not path.is_dir():
        raise InputError(f"--init: {path}: no such folder; accepted: a folder that diffusers' save_pretrained wrote")
    folder = path / "unet" if (path / "unet").is_dir() else path
    stored = _json(folder / "config.json")
    if (name := stored.get("_class_name", "UNet2DModel")) != "UNet2DModel":
        raise InputError(f"--init: {folder}: its class is {name}; accepted: UNet2DModel")
    config = DEFAULTS | stored
    backbone = _backbone(config, folder, height)
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), folder / WEIGHTS[0])
    tensors = read_tensors(weights)

    def tensors_for(unet: UNet) -> Tensors:
        name, ordered = "time_embedding.linear_1.weight", tensors
        if config["flip_sin_to_cos"] and name in tensors:  # theirs is cosines, then sines
            cosines, sines = tensors[name].chunk(2, 1)
            ordered = {**tensors, name: torch.cat([sines, cosines], 1)}
        return convert_tensors(ordered, unet, LAYOUT, f"--init: {folder}")

    scheduler = next((p for p in (path / "scheduler", path) if (p / "scheduler_config.json").is_file()), None)
    schedule, prediction = None, "eps"
    notes = ["no scheduler beside the U-Net: using the preset's schedule, and assuming that it predicts eps"]
    if scheduler is not None:
        schedule, prediction = _schedule(_json(scheduler / "scheduler_config.json"), scheduler)
        notes = []
    size = config.get("sample_size")
    return ImportedModel(
        backbone,
        int(config.get("in_channels", 3)),
        tensors_for,
        schedule,
        prediction,
        config["num_class_embeds"],
        size if isinstance(size, int) else None,
        notes,
    )


def _json(path: Path) -> Json:
    try:
        return read_json(path, "accepted: a folder that diffusers' save_pretrained wrote")
    except InputError as error:
        raise InputError(f"--init: {error}") from None


def _backbone(config: Json, folder: Path, height: int) -> Json:
    """Return the keys of our U-Net. Raises InputError, naming key and value, for a config that ours cannot express."""

    def reject(key: str, accepted: object) -> None:
        raise InputError(f"--init: {folder}: {key} is {config.get(key)!r}; accepted: {accepted}")

    for key, accepted in ONLY.items():
        if config[key] not in accepted:
            reject(key, " or ".join(map(repr, accepted)))
    down, up = config.get("down_block_types", []), config.get("up_block_types", [])
    if not down or not set(down) <= {"DownBlock2D", "AttnDownBlock2D"}:
        reject("down_block_types", "DownBlock2D and AttnDownBlock2D")
    attends = [name.startswith("Attn") for name in down]
    if list(up) != ["AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)]:
        reject("up_block_types", "those of down_block_types in reverse")
    variant = (config["norm_eps"], config["freq_shift"], config["downsample_padding"])
    if variant not in CONVENTIONS:
        raise InputError(f"--init: {folder}: norm_eps, freq_shift and downsample_padding are {variant}; "
                         f"accepted: {' or '.join(map(str, CONVENTIONS))}")  # fmt: skip
    widths = config["block_out_channels"]
    if any(width % widths[0] for width in widths):
        reject("block_out_channels", "multiples of the first")
    if config["attn_norm_num_groups"] not in (None, config["norm_num_groups"]):
        reject("attn_norm_num_groups", "one number of groups")
    if config.get("in_channels", 3) != config.get("out_channels", 3):
        reject("out_channels", "as many out as in")
    return {
        "name": "unet", "channels": widths[0], "mult": [width // widths[0] for width in widths],
        "blocks": config["layers_per_block"], "dropout": float(config["dropout"]),
        "attention": [height >> level for level, attend in enumerate(attends) if attend],
        "head_channels": config["attention_head_dim"], "conventions": CONVENTIONS[variant],
        "groups": config["norm_num_groups"], "first_time": 0,
    }  # fmt: skip


def _schedule(config: Json, folder: Path) -> tuple[Json, str]:
    """Return our schedule and prediction from a scheduler's config. Raises InputError for one that has no equal."""
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise InputError(f"--init: {folder}: prediction_type is {prediction!r}; accepted: {', '.join(PREDICTIONS)}")
    name, betas = config.get("beta_schedule", "linear"), config.get("trained_betas")
    if name not in SCHEDULES or betas is not None or config.get("rescale_betas_zero_snr"):
        what = "trained_betas" if betas is not None else f"beta_schedule {name!r}"
        raise InputError(f"--init: {folder}: {what} has no equal schedule in tdpm; accepted: "
                         f"{', '.join(SCHEDULES)}, without rescale_betas_zero_snr")  # fmt: skip
    schedule: Json = {"name": SCHEDULES[name], "steps": config.get("num_train_timesteps", 1000)}
    if name != "squaredcos_cap_v2":
        schedule |= {"beta_start": config.get("beta_start", 1e-4), "beta_end": config.get("beta_end", 0.02)}
    return schedule, PREDICTIONS[prediction]
