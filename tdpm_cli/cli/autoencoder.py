"""Words and options of `tdpm encode`, `decode`, `reconstruct`, `interpolate` and `edit`."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from tdpm_cli.cli.options import Model, Shown, count, existing, listed, numbers, pictures, ready, some

Images = Annotated[
    str,
    typer.Argument(
        help="A folder, a zip or a file of pictures, brought to the model's size; or a preset's data.",
        callback=pictures("IMAGES"),
    ),
]
Out = Annotated[Path, typer.Argument(help="The folder to write to.")]
Many = Annotated[Optional[str], typer.Option("--n", help="How many pictures, the first ones.", show_default="all")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Begin the folder again.")]
Labels = Annotated[
    Optional[str],
    typer.Option(help="Classes by number or name, taken in turn.", show_default="the folders' names, or none"),
]
Prompt = Annotated[Optional[list[str]], typer.Option(help="What is to be seen, in words; repeatable, taken in turn.")]
Steps = Annotated[Optional[int], Shown(help="Reverse steps.")]
Spacing = Annotated[Optional[float], Shown(help="Of the steps: 1 even, 2 shorter near the data.")]
Sampler = Annotated[Optional[str], Shown(help="Such as ddim or dpmpp_2m.")]
Scale = Annotated[Optional[float], Shown(help="Classifier-free guidance: 1 = off.")]
Noised = Annotated[
    Optional[int],
    typer.Option("--seed", min=0, max=2**62, help="x_T by noise of this seed.", show_default="by DDIM's inversion"),
]
Iterations = Annotated[int, typer.Option(min=1, help="Of each step of the inversion: more come nearer.")]


def encode(
    images: Images,
    out: Out,
    model: Model = None,
    n: Many = None,
    steps: Steps = None,
    spacing: Spacing = None,
    iterations: Iterations = 1,
    seed: Noised = None,
    labels: Labels = None,
    prompt: Prompt = None,
    guidance_scale: Scale = None,
    logits: Annotated[bool, typer.Option("--logits", help="The discriminator's view of each picture at T.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Pictures to their x_T."""
    number = _many(n)
    ready(model, steps=steps, spacing=spacing, guidance_scale=guidance_scale)

    from tdpm_cli.sampling.encode import encode as run

    run(
        images,
        out,
        model,
        n=number,
        steps=steps,
        spacing=spacing,
        iterations=iterations,
        seed=seed,
        guidance_scale=guidance_scale,
        labels=listed(labels),
        prompts=prompt,
        logits=logits,
        overwrite=overwrite,
    )


def decode(
    encoded: Annotated[
        Path,
        typer.Argument(help="A folder that `tdpm encode` wrote.", callback=existing("", "make one with `tdpm encode`")),
    ],
    out: Out,
    model: Model = None,
    steps: Steps = None,
    spacing: Spacing = None,
    sampler: Sampler = None,
    guidance_scale: Scale = None,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Of samplers that draw noise.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """x_T back to pictures."""
    from tdpm_cli.config.schema import check_options

    check_options({"steps": steps, "spacing": spacing, "sampler": sampler, "guidance_scale": guidance_scale})

    from tdpm_cli.sampling.decode import decode as run

    run(
        encoded,
        out,
        model,
        steps=steps,
        spacing=spacing,
        sampler=sampler,
        guidance_scale=guidance_scale,
        seed=seed,
        overwrite=overwrite,
    )


def reconstruct(
    images: Images,
    out: Out,
    model: Model = None,
    steps: Annotated[str, typer.Option(help="Steps each way, such as 4,16,64.")] = "4,8,16,32,64",
    at: Annotated[Optional[str], typer.Option(help="Encode to these t, such as 50,100.", show_default="T")] = None,
    n: Annotated[str, typer.Option(help="How many pictures, the first ones.")] = "64",
    spacing: Spacing = None,
    iterations: Iterations = 1,
    seed: Noised = None,
    labels: Labels = None,
    prompt: Prompt = None,
    overwrite: Overwrite = False,
) -> None:
    """Pictures to x_T and back: what is lost, against t and steps; table, plot and sheet."""
    number, chosen = count("--n", n), [count("--steps", word) for word in some("--steps", steps)]
    times = [count("--at", word) for word in listed(at)]
    ready(model, spacing=spacing)

    from tdpm_cli.evaluation.options import ReconstructOptions
    from tdpm_cli.evaluation.reconstruct import reconstruct as run

    run(images, out, ReconstructOptions(
        model=model, n=number, steps=chosen, at=times, iterations=iterations, seed=seed, labels=listed(labels),
        prompts=prompt, sampling={"spacing": spacing}, overwrite=overwrite,
    ))  # fmt: skip


def interpolate(
    out: Out,
    model: Model = None,
    images: Annotated[
        Optional[str],
        typer.Option(help="Between neighbours among these, by way of x_T.", callback=pictures("--images")),
    ] = None,
    seeds: Annotated[Optional[str], typer.Option(help="Between samples of these, by way of z: 0,1,2.")] = None,
    n: Many = None,
    frames: Annotated[int, typer.Option(min=2, help="Pictures on each way.")] = 8,
    steps: Steps = None,
    spacing: Spacing = None,
    iterations: Iterations = 1,
    sampler: Sampler = None,
    labels: Labels = None,
    prompt: Prompt = None,
    guidance_scale: Scale = None,
    overwrite: Overwrite = False,
) -> None:
    """From one picture, or one sample, to another."""
    number, chosen = _many(n), [_seed(word) for word in listed(seeds)]
    ready(model, steps=steps, spacing=spacing, sampler=sampler, guidance_scale=guidance_scale)

    from tdpm_cli.sampling.interpolate import interpolate as run

    run(
        out,
        model,
        images=images,
        seeds=chosen,
        n=number,
        frames=frames,
        steps=steps,
        spacing=spacing,
        iterations=iterations,
        sampler=sampler,
        guidance_scale=guidance_scale,
        labels=listed(labels),
        prompts=prompt,
        overwrite=overwrite,
    )


def edit(
    images: Images,
    out: Out,
    model: Model = None,
    strength: Annotated[str, typer.Option(help="Shares of T to noise to, such as 0.3,1.")] = "0.25,0.5,1",
    n: Annotated[str, typer.Option(help="How many pictures, the first ones.")] = "64",
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Of the noise.")] = 0,
    steps: Steps = None,
    spacing: Spacing = None,
    sampler: Sampler = None,
    labels: Labels = None,
    prompt: Prompt = None,
    guidance_scale: Scale = None,
    overwrite: Overwrite = False,
) -> None:
    """Pictures or rough sketches, made anew from the noise of a chosen strength."""
    strengths, number = numbers("--strength", strength), count("--n", n)
    ready(model, steps=steps, spacing=spacing, sampler=sampler, guidance_scale=guidance_scale)

    from tdpm_cli.sampling.edit import edit as run

    run(
        images,
        out,
        model,
        strengths=strengths,
        n=number,
        seed=seed,
        steps=steps,
        spacing=spacing,
        sampler=sampler,
        labels=listed(labels),
        prompts=prompt,
        guidance_scale=guidance_scale,
        overwrite=overwrite,
    )


def _many(n: Optional[str]) -> Optional[int]:
    return count("--n", n) if n else None


def _seed(word: str) -> int:
    from tdpm_cli.runtime.errors import InputError

    if not word.isdecimal():
        raise InputError(f"--seeds: {word!r} is no seed; accepted: whole numbers from 0, such as 0,1,2")
    return int(word)
