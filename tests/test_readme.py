"""The commands of the README and of docs/ exist as they are written."""

import os
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from tdpm_cli.cli import app
from tdpm_cli.config import presets
from tdpm_cli.config import schema as config

README = Path(__file__).parent.parent / "README.md"


PAGES = [README, *sorted((README.parent / "docs").glob("*.md"))]


def commands():
    for block in re.findall(r"```sh\n(.*?)```", "".join(page.read_text() for page in PAGES), re.DOTALL):
        yield from (shlex.split(line, comments=True) for line in block.splitlines() if line.strip())


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_readme_commands_exist_with_these_options(words, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda path: True)  # the readers' own data and runs
    if words[0] == "tdpm":
        verb = get_command(app).commands[words[1]]
        words = words[2:] if words[1] == "data" else words[1:]
        verb = verb.commands[words[0]] if hasattr(verb, "commands") else verb
        context = verb.make_context(words[0], words[1:])  # a wrong option or a missing argument raises
        from_file = context.params.get("init_prior")  # which knows some of the keys
        if words[0] == "train" and context.params["preset"] != "auto" and not from_file:
            plain = presets.override(presets.read_preset(context.params["preset"]), context.params["set_"] or [])
            config.from_dict(plain)
    elif words[0].startswith("scripts/"):
        assert os.access(README.parent / words[0], os.X_OK)
    else:
        assert words[:2] == ["pip", "install"]


def test_pictures_and_links_exist():
    targets = [
        page.parent / target for page in PAGES for target in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text())
    ]
    assert len(targets) > 5
    assert [target for target in targets if not target.exists()] == []
