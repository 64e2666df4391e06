"""The exported sampler in onnxruntime and torch.export, compared with eager PyTorch: scripts/bench export

All use the same z, batch size and number of threads. Prints images per second and the largest error in x_0 of each.
"""

import argparse
import tempfile
from pathlib import Path

from scripts.benchmarks.timing import machine, medians, row


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, help="run or weights file (default: --preset with random weights)")
    parser.add_argument("--preset", default="digits", help="preset of the networks (digits)")
    parser.add_argument("--steps", type=int, default=4, help="reverse steps (4)")
    parser.add_argument("--batch", type=int, default=16, help="images at a time (16)")
    parser.add_argument("--rounds", type=int, default=7, help="timed runs (7)")


def run(model: Path | None, preset: str, steps: int, batch: int, rounds: int) -> None:
    import onnxruntime
    import torch

    from tdpm_cli.checkpoints.weights import write_weights
    from tdpm_cli.config import load_config
    from tdpm_cli.export.sampler_module import SamplerModule
    from tdpm_cli.export.targets.onnx import Onnx
    from tdpm_cli.export.targets.torch import TorchExport
    from tdpm_cli.sampling import build
    from tdpm_cli.sampling.settings import settings_of

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if model is None:
            components = build.build(load_config(preset))
            for weights in components.model.parameters():  # layers initialised to zero would make the work trivial
                torch.nn.init.normal_(weights, std=0.02)
            model = root / "model.safetensors"
            write_weights(model, components.model, build.header(components.config, "model", 0))
        loaded = build.load_model(model)
        sampler = SamplerModule(loaded, settings_of(loaded.components, steps=steps, precision="fp32"), rgb=False).eval()
        for writer, name in ((TorchExport(), "m.pt2"), (Onnx(), "m.onnx")):
            writer.write(sampler, sampler.inputs(3), root / name, {})
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(root / "m.onnx"), options, providers=["CPUExecutionProvider"])
        loaded_program = torch.export.load(root / "m.pt2").module()
        inputs = sampler.inputs(batch, seed=1)
        arrays = {key: value.numpy() for key, value in inputs.items()}
        with torch.inference_mode():
            _, expected = sampler(inputs)
            errors = {
                "onnxruntime": (torch.from_numpy(session.run(None, arrays)[1]) - expected).abs().max(),
                "torch.export": (loaded_program(inputs)[1] - expected).abs().max(),
            }
            seconds = medians(
                {"eager": lambda: sampler(inputs), "onnxruntime": lambda: session.run(None, arrays),
                 "torch.export": lambda: loaded_program(inputs)}, rounds,
            )  # fmt: skip
    calls = loaded.components.model.nfe(steps)
    print(f"{loaded.components.config.preset}: {calls} network calls, batch {batch}, median of {rounds}; {machine()}")
    row("eager PyTorch", f"{batch / seconds['eager']:.4g} img/s")
    for name, error in errors.items():
        speed = f"{batch / seconds[name]:.4g} img/s"
        row(f"{name}, error {float(error):.1e}", speed, seconds["eager"] / seconds[name])
