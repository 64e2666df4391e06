"""Hostile files: tdpm must execute nothing of them, write nothing outside its folders, and bound its memory."""

import io
import json
import os
import pickle
import resource
import signal
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from scripts.stress_tests.inputs import call
from scripts.stress_tests.processes import IMAGES, POINTS, Outcome, quiet
from tdpm_cli.checkpoints import checkpoint, weights
from tdpm_cli.config import external, load_config, registry
from tdpm_cli.training.train import train

GiB = 1 << 30
MAX_MEMORY, MAX_SECONDS = GiB, 120  # of one process
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(executed) (w) file closefile\n%%EOF\n"
HARMLESS = ("a PNG with more rows than its header states",)  # tdpm reads the rows of the header only
CANARY = "executed"  # the file that hostile code would create


class Trap:
    """An object that runs a command when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.command = f"touch {folder / CANARY}"

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def hostile_files(n: int, folder: Path) -> Outcome:
    """Pass hostile files to the command line, each in its own process: all, or about n, evenly from all kinds."""
    quiet()
    run = train(load_config("toy-mixture", [*POINTS, "train.duration=64"]), folder, "run")
    images = train(load_config("digits", IMAGES), folder, "images")
    assert run is not None
    assert images is not None
    failures, highest = [], 0
    writers = (models, names, arrays, image_files, texts)
    cases = {name: case for write in writers for name, case in write(folder, run).items()}
    cases = dict(list(cases.items())[:: max(1, len(cases) // n)])
    _, _, base = call_in_process(["presets"], folder / "log")
    for name, arguments in cases.items():
        status, output, memory = call_in_process(arguments, folder / "log")
        highest = max(highest, memory)
        if status != (0 if name in HARMLESS else 2) or "Traceback" in output:
            failures.append(f"{name}: status {status}: {output[-400:]}")
        if (folder / CANARY).exists():
            failures.append(f"{name}: it was executed")
            (folder / CANARY).unlink()
        if memory > MAX_MEMORY:
            failures.append(f"{name}: {memory / GiB:.2f} GiB of memory")
    if escaped := list(folder.parent.glob("escaped*")):
        failures.append(f"written outside: {escaped}")
    return Outcome(
        "Loading a file executes nothing in it, and takes no more memory than was declared and checked before.",
        f"{len(cases)} hostile files: " + ", ".join(cases),
        f"{len(failures)} executed, wrote elsewhere or exited with a status other than 2 (0 for harmless ones); memory "
        f"at most {highest / 2**20:.0f} MiB, of which an empty process has {base / 2**20:.0f}",
        failures,
    )  # fmt: skip


def call_in_process(arguments: list[str], log: Path) -> tuple[int, str, int]:
    """Call the command line in its own process. Return its status, output, and peak memory in bytes."""
    return end_call(start_call(arguments, log), log)


def start_call(arguments: list[str], log: Path) -> int:
    """Begin a call of the command line in its own process; return its process id."""
    if child := os.fork():
        return child
    status = 1
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(MAX_SECONDS)  # ends a process that hangs
        status, text = call(arguments)
        log.write_text(text, errors="backslashreplace")
    finally:
        os._exit(status)


def end_call(child: int, log: Path) -> tuple[int, str, int]:
    """Wait for a call to end. Return its status, output, and peak memory in bytes."""
    _, code, used = os.wait4(child, 0)
    text = log.read_text(errors="replace") if log.exists() else ""
    log.unlink(missing_ok=True)
    return os.waitstatus_to_exitcode(code), text, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def models(folder: Path, run: Path) -> dict[str, list[str]]:
    """Write files that pose as models."""
    sample = lambda path: ["sample", "--model", str(path), "--n", "4", str(folder / "out")]
    cases = {}
    path = folder / "pickle.safetensors"
    path.write_bytes(pickle.dumps(Trap(folder)))
    cases["a pickle as weights"] = sample(path)
    path = folder / "pickle.pt"
    torch.save({"model": Trap(folder)}, path)
    cases["a torch pickle as weights"] = sample(path)

    tensors, header = weights.read_weights(checkpoint.newest_weights(run))
    config = json.loads(header["config"])

    def spoiled(name: str, **sections: dict[str, object]) -> list[str]:
        path = folder / f"{name}.safetensors"
        changed = {**config, **{key: {**config[key], **values} for key, values in sections.items()}}
        weights.write_tensors(path, tensors, header | {"config": json.dumps(changed)})
        return sample(path)

    cases["a config with extremely wide networks"] = spoiled("wide", backbone={"width": 1 << 20})
    cases["a config with extremely deep networks"] = spoiled("deep", backbone={"blocks": 1 << 20})
    cases["a config with an extremely long schedule"] = spoiled("long", schedule={"steps": 1 << 40})
    cases["a config that names a module"] = spoiled("module", backbone={"name": "os"})
    path = folder / "header.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    cases["a header of exabytes"] = sample(path)
    path = folder / "sparse.safetensors"
    text = json.dumps({"a": {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]},
                       "__metadata__": header}).encode()  # fmt: skip
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + (1 << 40))
    cases["a terabyte of weights"] = sample(path)

    train_from = lambda init: ["train", "--preset", "digits", "--outdir", str(folder), "--init", init]
    cases["a torch pickle as weights of another project"] = train_from(f"ddim:{folder / 'pickle.pt'}")
    return cases


def names(folder: Path, run: Path) -> dict[str, list[str]]:
    """Write models that name files and hubs in every key that can, and an autoencoder that is larger than its file."""
    tensors, header = weights.read_weights(checkpoint.newest_weights(run))
    config, cases = json.loads(header["config"]), {}
    trap = folder / "trap"
    trap.mkdir()
    (trap / "code.py").write_text(f"open({str(folder / CANARY)!r}, 'w')")
    automatic = {"auto_map": {"AutoTokenizer": ["code.Trap", None], "AutoModel": "code.Trap"}}
    for name in ("config.json", "tokenizer_config.json"):
        (trap / name).write_text(json.dumps(automatic | {"model_type": "clip_text_model"}))

    def naming(section: str, values: dict[str, object], *options: str) -> list[str]:
        path = folder / f"names-{len(cases)}.safetensors"
        weights.write_tensors(path, tensors, header | {"config": json.dumps({**config, section: values})})
        command = ["eval", "--n", "4"] if section == "data" else ["sample", "--n", "4", str(folder / "out")]
        return [*command, "--model", str(path), *options]

    needed = {"shape": [3, 8, 8], "low": [3, 4, 4]}
    for section, kind in external.SECTIONS.items():
        for component in registry.names(kind):
            keys = registry.keys(kind, component)
            own = {key: needed[key] for key in needed if key in keys}
            for key in external.of_component(kind, component):
                for value in (str(trap), "someone/trap"):
                    values = {"name": component, **own, key: value}
                    cases[f"{section}.{key} of {component}: {value.split('/')[0] or 'a folder'}"] = naming(
                        section, values
                    )
    cases["data.path"] = naming("data", {"name": "images", "path": str(trap)})
    for program in ("../../trap", "0" * 64):
        cases[f"prior.program: {program[:5]}"] = naming("prior", {"name": "torchscript", "program": program})
    images = folder / "encoded"
    images.mkdir()
    Image.new("RGB", (8, 8)).save(images / "0.png")
    encode = ["data", "encode", str(images), str(folder / "latents.zip"), "--resolution", "8", "--autoencoder"]
    cases["an autoencoder of 8,192 channels"] = [*encode, str(wide_autoencoder(folder))]
    return cases


def wide_autoencoder(folder: Path) -> Path:
    """Write a folder whose config describes an autoencoder of 8,192 channels, with a file of 16 weights."""
    folder = folder / "wide-autoencoder"
    folder.mkdir()
    settings = {"_class_name": "AutoencoderKL", "block_out_channels": [8192] * 4, "latent_channels": 4,
                "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    weights.write_tensors(folder / "diffusion_pytorch_model.safetensors", {"x": torch.zeros(16)}, {})
    return folder


def arrays(folder: Path, run: Path) -> dict[str, list[str]]:
    """Write files that pose as an .npz."""
    score = lambda path: ["eval", str(path), "--ref", "digits", "--features", "efficientnet-lite0"]
    cases = {}
    path = folder / "objects.npz"
    np.savez(path, arr_0=np.array([Trap(folder)], dtype=object))
    cases["pickled objects in an .npz"] = score(path)
    path = folder / "statistics.npz"
    np.savez(path, mu=np.array([Trap(folder)], dtype=object), sigma=np.zeros((1, 1)))
    cases["pickled objects in statistics"] = ["eval", "digits", "--ref", str(path)]
    path = folder / "bomb.npz"
    np.savez_compressed(path, arr_0=np.zeros((1, 1), np.uint8))
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("arr_0.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (8192, 512, 512, 1)}
        )
        for _ in range(2048):
            file.write(bytes(1 << 20))
    cases["an .npz of 2 GiB of zeros"] = score(path)
    path = folder / "false-header.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("arr_0.npy", "w") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (1 << 30, 64, 64, 3)}
        )
    cases["an .npz whose header states terabytes"] = score(path)
    return cases


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *, rows: int, extra: bytes = b"") -> bytes:
    """Return a black grey-scale PNG whose header states a size, and which contains `rows` rows."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(1 + width)
    packed = b"".join(packer.compress(row) for _ in range(rows)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def image_files(folder: Path, run: Path) -> dict[str, list[str]]:
    """Write files that pose as images."""
    cases = {}
    train_on = lambda path: ["train", "--preset", "digits", "--data", str(path), "--outdir", str(folder),
                         "--duration", "64", "--name", f"run-{path.name}", "--set", "data.upscale=true"]  # fmt: skip

    def in_folder(name: str, content: bytes) -> list[str]:
        images = folder / name
        images.mkdir()
        (images / "0.png").write_bytes(content)
        return train_on(images)

    cases["a PNG of 50,000 × 50,000"] = in_folder("huge", png(50_000, 50_000, rows=2000))
    cases["a PNG with more rows than its header states"] = in_folder("more", png(64, 64, rows=1 << 20))
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 28), 9))
    cases["a PNG with 256 MiB of packed text"] = in_folder("text", png(64, 64, rows=32, extra=text * 8))
    verify = lambda path: ["data", "verify", str(path), "--workers", "1"]

    def beside_a_sound_one(name: str, make: Callable[[Path], object], file: str = "1.png") -> list[str]:
        images = folder / name
        images.mkdir()
        Image.new("L", (8, 8)).save(images / "0.png")
        make(images / file)
        return verify(images)

    large = lambda path: Image.new("I;16", (11_580, 11_580)).save(path, compress_level=1)
    cases["a 16-bit PNG of 11,580 × 11,580"] = beside_a_sound_one("large", large)
    cases["a FIFO among images"] = beside_a_sound_one("fifo", os.mkfifo)
    cases["a link to an endless device among images"] = beside_a_sound_one("zero", lambda x: x.symlink_to("/dev/zero"))
    cases["a link to a terminal among images"] = beside_a_sound_one("tty", lambda path: path.symlink_to("/dev/tty"))
    cases["a FIFO as labels"] = beside_a_sound_one("labels", os.mkfifo, "dataset.json")
    cases["a FIFO as metadata"] = beside_a_sound_one("texts", os.mkfifo, "metadata.jsonl")
    cases["an EPS, which is a program"] = beside_a_sound_one("eps", lambda path: path.write_bytes(EPS))
    cases["a name that is not UTF-8"] = beside_a_sound_one("names", lambda x: x.write_bytes(b""), "caf\udce9\n#.png")
    for kind in ("fifo.zip", "fifo.npz", "fifo.tar", "fifo.bin"):
        os.mkfifo(folder / kind)
        cases[f"a FIFO as {kind}"] = verify(folder / kind)
    sound = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(sound, "PNG")

    def zipped(name: str, entries: dict[str, bytes]) -> list[str]:
        path = folder / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry, content in entries.items():
                archive.writestr(entry, content)
        return train_on(path)

    cases["a zip with a path outside its folder"] = zipped("slip.zip", {"../escaped.png": sound.getvalue()})
    cases["a zip bomb"] = zipped("bomb.zip", {"a.png": bytes((1 << 29) + 1)})
    deep = b'{"labels": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    cases["labels nested 200,000 deep"] = zipped("deep.zip", {"a.png": sound.getvalue(), "dataset.json": deep})
    many = json.dumps({"labels": [["a.png", 1 << 60]]}).encode()
    cases["a label of 2^60 classes"] = zipped("many.zip", {"a.png": sound.getvalue(), "dataset.json": many})
    caption = {"captions": {"a.png": {"__reduce__": ["os.system", f"touch {folder / CANARY}"]}}}
    entries = {"a.png": sound.getvalue(), "dataset.json": json.dumps(caption).encode()}
    cases["captions that are objects"] = [
        *zipped("captions.zip", entries), "--set", "condition.name=text", "--set", "condition.text_encoder=minilm"
    ]  # fmt: skip
    return cases


def texts(folder: Path, run: Path) -> dict[str, list[str]]:
    """Write files that pose as presets."""
    cases = {}

    def preset(name: str, content: str) -> list[str]:
        path = folder / f"{name}.yaml"
        path.write_text(content)
        return ["train", "--preset", str(path), "--outdir", str(folder)]

    cases["a YAML tag that calls a function"] = preset(
        "tag", f"data: !!python/object/apply:os.system ['touch {folder / CANARY}']"
    )
    lol = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{k}: &a{k} [{','.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 12)
    )
    cases["a billion laughs"] = preset("laughs", lol + "train: *a11\n")
    cases["a YAML nested 100,000 deep"] = preset("nested", "data: " + "[" * 100_000)
    cases["a YAML of 64 MiB"] = preset("long", "# " + "x" * (1 << 26))
    cases["a binary preset"] = preset("binary", "\0\1\2")
    return cases
