"""The whole sampler, exported, in onnxruntime and as a program of torch.export, beside the same one run eagerly.

The same z, batch and number of threads for all; the largest error in x_0 of each beside its time.
"""

import argparse
import tempfile
from pathlib import Path

from scripts.benchmarks.timing import machine, medians, row


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, help="a run or a file (default: --preset with random weights)")
    parser.add_argument("--preset", default="digits", help="whose networks (digits)")
    parser.add_argument("--steps", type=int, default=4, help="reverse steps (4)")
    parser.add_argument("--batch", type=int, default=16, help="images at a time (16)")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each (7)")


def run(model: Path | None, preset: str, steps: int, batch: int, rounds: int) -> None:
    import onnxruntime
    import torch

    from tdpm_cli.checkpoints.weights import write_weights
    from tdpm_cli.config import schema
    from tdpm_cli.export.sampler_module import Whole
    from tdpm_cli.export.targets import onnx
    from tdpm_cli.export.targets import torch_export as program
    from tdpm_cli.sampling import build
    from tdpm_cli.sampling.settings import settings_of

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if model is None:
            made = build.build(schema.load_config(preset))
            for weights in made.model.parameters():  # layers that begin at zero would make some of the work trivial
                torch.nn.init.normal_(weights, std=0.02)
            model = place / "model.safetensors"
            write_weights(model, made.model, build.header(made.config, "model", 0))
        loaded = build.load(model)
        whole = Whole(loaded, settings_of(loaded.components, steps=steps, precision="fp32"), rgb=False).eval()
        for writer, name in ((program, "m.pt2"), (onnx, "m.onnx")):
            writer.write(whole, whole.inputs(3), place / name, {})
        chosen = onnxruntime.SessionOptions()
        chosen.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(place / "m.onnx"), chosen, providers=["CPUExecutionProvider"])
        loaded_program = torch.export.load(place / "m.pt2").module()
        inputs = whole.inputs(batch, seed=1)
        arrays = {key: value.numpy() for key, value in inputs.items()}
        with torch.inference_mode():
            _, expected = whole(inputs)
            errors = {
                "onnxruntime": (torch.from_numpy(session.run(None, arrays)[1]) - expected).abs().max(),
                "torch.export": (loaded_program(inputs)[1] - expected).abs().max(),
            }
            seconds = medians(
                {"eager": lambda: whole(inputs), "onnxruntime": lambda: session.run(None, arrays),
                 "torch.export": lambda: loaded_program(inputs)}, rounds,
            )  # fmt: skip
    calls = loaded.components.model.nfe(steps)
    print(f"{loaded.assembly.config.preset}: {calls} network calls, batch {batch}, median of {rounds}; {machine()}")
    row("eager PyTorch", f"{batch / seconds['eager']:.4g} img/s")
    for name, error in errors.items():
        speed = f"{batch / seconds[name]:.4g} img/s"
        row(f"{name}, error {float(error):.1e}", speed, seconds["eager"] / seconds[name])
