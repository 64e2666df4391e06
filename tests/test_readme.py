"""The commands, programs, links and paths of README.md, CONTRIBUTING.md and docs/ are right as they are written."""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from typer.main import get_command

from tdpm_cli.cli import app
from tdpm_cli.config import presets, registry
from tdpm_cli.config import schema as config
from tdpm_cli.engine.schedules.linear import linear

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EVERY_PAGE = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def commands_of(page):
    for block in blocks(page, "sh"):
        yield from (shlex.split(line, comments=True) for line in block.splitlines() if line.strip())


def ids(values):
    return [f"{page.stem}-{number}" for page, number, _ in values]


COMMANDS = [(page, number, arguments) for page in PAGES for number, arguments in enumerate(commands_of(page), 1)]
PROGRAMS = [(page, number, block) for page in PAGES for number, block in enumerate(blocks(page, "python"), 1)]


@pytest.mark.parametrize(
    ("page", "number", "arguments"), COMMANDS, ids=[" ".join(arguments) for *_, arguments in COMMANDS]
)
def test_commands_exist_with_these_options(page, number, arguments, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda path: True)  # the data and runs of whoever reads the page
    if arguments[0] == "tdpm":
        command = get_command(app).commands[arguments[1]]
        arguments = arguments[2:] if arguments[1] == "data" else arguments[1:]
        command = command.commands[arguments[0]] if hasattr(command, "commands") else command
        context = command.make_context(arguments[0], arguments[1:])  # a wrong option or a missing argument raises
        from_file = context.params.get("init_prior")  # which knows some of the keys
        if arguments[0] == "train" and context.params["preset"] != "auto" and not from_file:
            plain = presets.override(presets.read_preset(context.params["preset"]), context.params["set_"] or [])
            config.load_config(plain)
    elif arguments[0].startswith("scripts/"):
        assert os.access(ROOT / arguments[0], os.X_OK)
    else:
        assert arguments[:2] == ["pip", "install"]


@pytest.mark.parametrize(("page", "number", "program"), PROGRAMS, ids=ids(PROGRAMS))
def test_python_programs_run(page, number, program, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(runs["images"])
    with torch.random.fork_rng():
        exec(compile(program, f"{page.name}, program {number}", "exec"), {})


@pytest.fixture
def example_sampler(tmp_path, monkeypatch):
    """The sampler that CONTRIBUTING.md adds as an example, in a folder of its own."""
    import tdpm_cli.engine.samplers as package

    (source,) = blocks(ROOT / "CONTRIBUTING.md", "python")
    (tmp_path / "multistep.py").write_text(source)
    monkeypatch.setattr(package, "__path__", list(package.__path__))
    registry.add_folder("sampler", tmp_path)
    yield "multistep"
    sys.modules.pop("tdpm_cli.engine.samplers.multistep", None)


def sampled(name, steps, **options):
    """x_0 of Gaussian data N(0, 1/4), whose denoiser is exact, and the exact solution of the probability-flow ODE."""
    schedule = linear().truncate(step=400)

    def denoise(x_t, t):
        alpha, sigma = schedule.coefficients(t, x_t)
        return alpha / 4 / (alpha**2 / 4 + sigma**2) * x_t

    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    x_0 = registry.load("sampler", name)(denoise, x_T, schedule.respace(steps), schedule, noise=None, **options)
    std = (schedule.alpha(400) ** 2 / 4 + schedule.sigma(400) ** 2) ** 0.5
    return x_0, x_T / std / 2


def test_the_example_sampler_is_one_file(example_sampler):
    assert example_sampler in registry.names("sampler")
    assert list(registry.keys("sampler", example_sampler)) == ["weight"]
    assert "Liu et al. 2022" in registry.summary("sampler", example_sampler)


def test_the_example_sampler_is_ddim_at_weight_0(example_sampler):
    assert torch.allclose(sampled(example_sampler, 8, weight=0.0)[0], sampled("ddim", 8)[0])


@pytest.mark.parametrize("steps", [4, 8, 20])
def test_the_example_sampler_is_nearer_to_the_solution_than_ddim(example_sampler, steps):
    x_0, exact = sampled(example_sampler, steps)
    assert (x_0 - exact).abs().max() < (sampled("ddim", steps)[0] - exact).abs().max() / 2


def anchors(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: page.stem)
def test_links_and_images_exist(page):
    for target in re.findall(r"\]\((?!http)([^)]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", EVERY_PAGE[:-1], ids=lambda page: page.stem)
def test_scripts_tests_and_modules_that_a_page_names_exist(page):
    text = page.read_text()
    named = set(re.findall(r"(?<![\w/])(?:scripts|tests|tdpm_cli|presets)/[\w/-]+(?:\.\w+)?", text))
    added = {"tdpm_cli/engine/samplers/multistep.py"}  # by the reader
    assert [name for name in named - added if not (ROOT / name).exists()] == []


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text()
    assert [page.name for page in PAGES[1:] if page.name != "README.md" and f"({page.name})" not in index] == []


def test_the_file_tree_is_that_of_the_package():
    (tree,) = blocks(ROOT / "CONTRIBUTING.md", "text")
    named, folders = set(), []
    for line in tree.splitlines():
        indent, name = re.match(r"( *)(\S+/) *", line).groups()
        folders = [*folders[: len(indent) // 2], name]
        named.add("".join(folders).rstrip("/"))
    package = {path.parent for path in (ROOT / "tdpm_cli").rglob("__init__.py")} - {ROOT / "tdpm_cli"}
    tops = {"presets", "tests", "scripts", "docs", "tdpm_cli"}
    assert named == tops | {path.relative_to(ROOT).as_posix() for path in package}
