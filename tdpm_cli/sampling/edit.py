"""`tdpm edit`: add noise to images or rough sketches, and denoise them (SDEdit, Meng et al. 2022)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tdpm_cli.config.schema import SampleConfig
from tdpm_cli.runtime import grids
from tdpm_cli.runtime.console import print_line, table
from tdpm_cli.runtime.files import Json
from tdpm_cli.sampling.autoencoder import time_of
from tdpm_cli.sampling.image_folder import SHEET, ImageFolder, open_image_folder, precision_of
from tdpm_cli.sampling.input_images import InputImages, choose_labels, labels_of, psnr, read_images
from tdpm_cli.sampling.model import Model, load_for_command
from tdpm_cli.sampling.options import EditOptions
from tdpm_cli.sampling.settings import describe


@dataclass(frozen=True)
class Editor:
    """Edits images of a model."""

    model: Model
    images: InputImages
    labels: Sequence[str] | None
    seed: int
    sampling: Mapping[str, object]

    def __call__(self, strength: float, part: slice) -> Tensor:
        """Return some of the images, edited at this strength."""
        labels = labels_of(self.labels, part)
        raw = self.images.raw[part]
        return self.model.edit(raw, strength, seed=self.seed, first=part.start, labels=labels, **self.sampling)

    @property
    def settings(self) -> SampleConfig:
        """The sampling settings."""
        return self.model.settings(**self.sampling)


def edit(source: str, out: Path, options: EditOptions) -> None:
    """Write every image at every strength, a manifest and a contact sheet to `out`.

    `000000-0.png` is the first image at the first strength. Raises InputError for input that does not fit the model,
    before anything is written.
    """
    model = load_for_command(options.model, options.external)
    images = read_images(source, model, options.n)
    labels = choose_labels(model, options, images.labels)
    sampling = {**options.sampling, "precision": precision_of(out, options.overwrite)}
    editor = Editor(model, images, labels, options.seed, sampling)
    for strength in options.strengths:
        editor(strength, slice(0, 1))  # raises for a strength that is not accepted
    manifest = _manifest(editor, options)
    with open_image_folder(out, manifest, options.overwrite, [source]) as folder:
        if folder is None:
            return
        rows = _fill(folder, editor, options.strengths, manifest)
    table(f"edit {source}", rows)
    print_line(f"done: {len(images.raw)} · {len(options.strengths)} in {out}, sheet {out / SHEET}")


def _manifest(editor: Editor, options: EditOptions) -> Json:
    # Edits start from noised images, and do not call the prior.
    return describe(editor.model.loaded, editor.settings, options.seed, "data") | {
        "command": "edit", "strengths": list(options.strengths), "condition": options.condition,
        "input_sha256": editor.images.sha256(),
    }  # fmt: skip


def _fill(folder: ImageFolder, editor: Editor, strengths: Sequence[float], manifest: Json) -> list[dict[str, str]]:
    """Write everything, the manifest last; return a row of errors for each strength."""
    model, images, settings = editor.model, editor.images, editor.settings
    panels, entries, rows = {"images": model.space.to_image(images.raw)}, list[Json](), list[dict[str, str]]()
    for k, strength in enumerate(strengths):
        edit_part = lambda part, strength=strength: editor(strength, part)
        edited = folder.compute(f"strength {strength:g}", len(images.raw), settings.batch, edit_part)
        names = [f"{number:06d}-{k}.png" for number in range(len(edited))]
        folder.write_images(edited, names)
        t = time_of(strength, model.schedule)
        panels[f"strength {strength:g}, t = {t}"] = model.space.to_image(edited)
        rows.append({
            "strength": f"{strength:g}", "t": str(t), "sigma": f"{model.schedule.sigma(t):.3g}",
            "steps": str(min(settings.steps, t)), "PSNR to the images": f"{psnr(edited, images.raw).mean():.4g}",
        })  # fmt: skip
        entries += [
            {"file": name, "source": source, "strength": strength, "t": t}
            for name, source in zip(names, images.names, strict=True)
        ]
    grids.save(grids.side_by_side(panels), folder.path / SHEET)
    folder.finish(manifest, entries)
    return rows
