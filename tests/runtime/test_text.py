"""Names from files, as terminals, pages and tables show them."""

import csv
import io

import pytest
from rich.console import Console

from tdpm_cli.runtime import console
from tdpm_cli.runtime.html import Page
from tdpm_cli.runtime.text import csv_text, visible, visible_lines

HOSTILE = ["a\x1b[31mb", "a[/red]", "[x]", "a\x9b2J", "a\rb", "a\x08b", "a\u202eb", "<script>alert(1)</script>",
           ":smile:", "caf\udce9", "a\\", "a\tb"]  # fmt: skip


@pytest.mark.parametrize(("text", "shown"), [
    ("a\x1b[31m", "a\\x1b[31m"), ("\x9b", "\\x9b"), ("\n\t", "\\x0a\\x09"), ("caf\udce9", "caf\\xe9"),
    ("\u202egnp", "\\u202egnp"), ("[/red] é ★", "[/red] é ★"),
])  # fmt: skip
def test_control_characters_are_shown(text, shown):
    assert visible(text) == shown


def test_lines_remain_lines():
    assert visible_lines("a\nb\x1b") == "a\nb\\x1b"


@pytest.mark.parametrize("name", HOSTILE)
def test_the_terminal_shows_a_name_as_it_is(name, capsys):
    console.print_line(f"name {name}")
    console.table(name, [{name: name}])
    console.ProgressBar(name, 1).advance(1)
    out, err = capsys.readouterr()
    assert visible(name) in out
    assert err.count(visible(name)) == 2
    for character in set("\x1b\x9b\r\x08\u202e\udce9") & set(name):
        assert character not in out + err


@pytest.mark.parametrize("name", HOSTILE)
def test_a_progress_bar_shows_a_name_as_it_is(name, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=screen, force_terminal=True, width=200, emoji=False))
    with console.ProgressBar(name, 1) as bar:
        bar.advance(1)
    assert visible(name) in screen.getvalue()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_page_shows_a_name_as_it_is(name, tmp_path):
    page = Page(name)
    page.table(name, [{name: name}], note=name)
    page.details(name, {name: {name: name}})
    page.text(name, name)
    page.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert visible(name).replace("<", "&lt;").replace(">", "&gt;") in text
    assert not set("\x1b\x9b\x08\u202e") & set(text)


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_a_spreadsheet_computes_no_name(cell):
    ((written, number),) = csv.reader(io.StringIO(csv_text([[cell, -1.5]])))
    assert (written, number) == (f"'{cell}", "-1.5")
