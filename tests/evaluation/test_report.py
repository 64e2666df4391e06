import base64
import html
import io
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from PIL import Image

from tdpm_cli.runtime import plots
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.html import Page
from tdpm_cli.runtime.plots import Frame, Series

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EVIL = '<script>alert("1")</script> & more'
NFE = [2, 3, 5, 9, 17]
SCORES = [37.27, 29.6, 25.48, 23.48, 22.57]


def lines(series, level=None, **frame):
    """Draw series in a plot without titles, unless `frame` sets some."""
    return plots.lines(series, Frame(**{"title": "", "x_label": "", "y_label": "", **frame}), level)


def missing(monkeypatch, module):
    for name in [module, *(name for name in sys.modules if name.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, name, None)


# The plots


@pytest.fixture
def sweep():
    """Draw two series over NFE on logarithmic axes, with error bars and a level."""
    pytest.importorskip("matplotlib")

    def draw(name="ours"):
        two = [Series(name, NFE, SCORES, [1.2] * 5), Series("baseline", [*NFE, 51], [522.1, 348.8, 116, 49, 29, 23])]
        labels = {"title": f"{name} against NFE", "x_label": "NFE", "y_label": "FD"}
        return lines(two, **labels, log_x=True, log_y=True, level=("ceiling", 11.18))

    return draw


def texts(figure):
    """All text that a reader of the plot sees."""
    return [html.unescape(word) for word in re.findall(r"<text[^>]*>([^<]*)</text>", plots.svg(figure))]


def test_a_plot_shows_its_titles_names_and_values(sweep):
    shown = texts(sweep())
    assert {"ours against NFE", "NFE", "FD", "ceiling", "ours", "baseline"} <= set(shown)
    ticks = [float(word) for word in shown if re.fullmatch(r"[\d.]+", word)]
    assert ticks == [*NFE, 51, 10, 20, 50, 100, 200, 500]


def test_a_level_is_drawn_at_its_height_inside_the_axes(sweep):
    axes = sweep().axes[0]
    assert [line.get_ydata() for line in axes.lines if line.get_linestyle() == "--"] == [[11.18, 11.18]]
    assert axes.get_ylim()[0] < 11.18


def test_series_differ_by_more_than_colour_and_bars_have_their_length():
    pytest.importorskip("matplotlib")
    many = [Series(f"s{k}", [1, 2], [k, k + 1], [0.5, 0.25]) for k in range(7)]
    drawn = lines(many).axes[0].containers
    assert len({each.lines[0].get_marker() for each in drawn}) == 7
    bars = drawn[3].lines[2][0].get_segments()
    assert [bar[:, 1].tolist() for bar in bars] == [[2.5, 3.5], [3.75, 4.25]]


def test_one_series_has_no_legend():
    pytest.importorskip("matplotlib")
    figure = lines([Series("alone", [1, 2], [3, 4])], title="t", x_label="x", y_label="y")
    assert "alone" not in texts(figure)


def test_ticks_that_would_overprint_one_another_are_left_out():
    pytest.importorskip("matplotlib")
    figure = lines([Series("", [16, 17, 1, 2, 4], [1] * 5)], log_x=True)
    assert figure.axes[0].get_xticks().tolist() == [1, 2, 4, 16]


def test_a_narrow_logarithmic_axis_has_more_than_one_tick():
    axes = lines([Series("", [1, 2], [94.6, 106.1])], log_y=True).axes[0]
    low, high = axes.get_ylim()
    assert sum(low <= tick <= high for tick in axes.get_yticks()) >= 3


def test_bars_that_reach_below_zero_and_single_points_are_drawn_on_logarithmic_axes():
    pytest.importorskip("matplotlib")
    series = [Series("wide", [1], [1.0], [2.0]), Series("none", [], [])]
    figure = lines(series, log_x=True, log_y=True)
    assert "<svg" in plots.svg(figure)
    assert figure.axes[0].get_ylim()[1] > 3


def test_an_axis_with_a_value_that_is_not_positive_is_linear_so_that_none_is_lost():
    pytest.importorskip("matplotlib")
    series = [Series("KID", [1, 2, 3], [0.1, 0.01, -0.001])]
    axes = lines(series, log_x=True, log_y=True).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert axes.get_ylim()[0] < -0.001


def test_svg_is_one_element_the_same_each_time_with_ids_of_its_own(sweep):
    text = plots.svg(sweep())
    assert text.startswith("<svg")
    assert text.endswith("</svg>\n")
    figure = sweep()
    assert plots.svg(figure) == plots.svg(figure) == text
    ids = lambda text: set(re.findall(r'\bid="([^"]*)"', text))
    targets = set(re.findall(r'(?:href="|url\()#([^")]*)', text))
    assert targets
    assert targets <= ids(text)
    assert not ids(text) & ids(plots.svg(sweep("theirs")))


def test_names_are_shown_as_they_are(sweep):
    assert EVIL in texts(sweep(EVIL))
    assert "<script" not in plots.svg(sweep(EVIL))
    assert "a $b$" in texts(sweep("a $b$"))


def test_drawing_leaves_the_settings_of_matplotlib_alone(sweep):
    matplotlib = pytest.importorskip("matplotlib")
    before = dict(matplotlib.rcParams)
    plots.svg(sweep())
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", ["plot.png", "plot.SVG"])
def test_a_plot_is_saved_by_its_suffix(name, sweep, tmp_path):
    plots.save(sweep(), tmp_path / "new" / name)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]
    if name.endswith("png"):
        with Image.open(tmp_path / "new" / name) as picture:
            assert picture.size == (960, 680)
    else:
        assert (tmp_path / "new" / name).read_text() == plots.svg(sweep())


def test_a_plot_that_cannot_be_saved(sweep, tmp_path):
    with pytest.raises(InputError, match=r"plot\.jpg: .*\.png or \.svg"):
        plots.save(sweep(), tmp_path / "plot.jpg")


@pytest.mark.parametrize("name", ["plot.png", "plot.svg"])
def test_a_plot_in_a_folder_that_is_a_file(sweep, tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=rf"file/{name}: "):
        plots.save(sweep(), tmp_path / "file" / name)


def test_plots_without_matplotlib(monkeypatch):
    missing(monkeypatch, "matplotlib")
    with pytest.raises(InputError, match=r"matplotlib; .* pip install 'tdpm-cli\[report\]'"):
        lines([])


# The page


def png(width, height=8):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "navy").save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def page(sweep):
    """A page with a section of each kind, whose every text is `text`."""
    pytest.importorskip("jinja2")

    def make(text="words"):
        page = Page(text)
        page.text(text, text)
        wide = {text: text, **{f"a column of a long name {k}": k * 1234.567 for k in range(8)}}
        page.table(text, [wide, wide], text)
        page.figure(text, plots.svg(sweep(text)), text)
        page.figure(text, plots.svg(sweep("again")))
        page.image(text, png(1352), text)
        nested = {"sha256": "0123456789abcdef" * 4, "options": {"eta": {"at": {"t": 0.0}}, "none": {}}}
        page.details(text, {text: text, "samples": {text: [text, 1], **nested}})
        return page

    return make


@pytest.fixture
def written(tmp_path):
    """The text of a page, by way of its file."""

    def write(page):
        page.write(tmp_path / "page.html")
        return (tmp_path / "page.html").read_text(encoding="utf-8")

    return write


class Reader(HTMLParser):
    """Collects tags, attributes and text; fails on a tag that is not closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.cells, self.text = [], [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, key, value) for key, value in attributes]
        if tag in ("th", "td"):
            self.cells.append((dict(attributes).get("class"), ""))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("th", "td"):
            kind, so_far = self.cells[-1]
            self.cells[-1] = kind, so_far + data

    def values(self, *keys):
        return [value for _, key, value in self.attributes if key in keys]


def test_the_page_is_well_formed_and_contains_all_sections_in_order(page, written):
    text = written(page())
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    read = Reader(text)
    kinds = [tag for tag in read.tags if tag in ("p", "table", "svg", "img", "details")]
    assert kinds == ["p", "table", "p", "svg", "p", "svg", "img", "p", "details"]
    ids = read.values("id")
    assert len(ids) == len(set(ids))


def test_all_text_is_escaped(page, written):
    read = Reader(written(page(EVIL)))
    assert "script" not in read.tags
    assert read.text.count(EVIL) >= 14
    assert EVIL in read.values("alt")


def test_the_page_refers_to_nothing_outside_itself(page, written):
    text = written(page())
    read = Reader(text)
    references = read.values("src", "href", "xlink:href", "srcset", "data", "action")
    assert references
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in references)
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) == {"#"}
    assert not {"script", "link", "iframe", "base"} & set(read.tags)


def test_pictures_survive_byte_for_byte_and_stay_sharp_where_they_fit(written):
    pytest.importorskip("jinja2")
    page = Page("pictures")
    pictures = [png(80), png(1352)]
    for picture in pictures:
        page.image("samples", picture)
    read = Reader(written(page))
    assert [base64.b64decode(value.partition(",")[2]) for value in read.values("src")] == pictures
    assert read.values("class").count("sharp") == 1


def test_numbers_are_aligned_right_and_the_first_row_names_the_columns(written):
    pytest.importorskip("jinja2")
    page = Page("scores")
    page.table(
        "scores",
        [
            {"name": "ours", "NFE": "1 + 4", "FD": 25.48123, "KID": "0.01 ± 4e-05", "n": 50_000, "EMA": True},
            {"name": "3", "FD": None, "KID": "–", "n": 1797, "EMA": False, "more": "left out"},
        ],
    )
    assert Reader(written(page)).cells == [
        (None, "name"), ("number", "NFE"), ("number", "FD"), ("number", "KID"), ("number", "n"), (None, "EMA"),
        (None, "ours"), ("number", "1 + 4"), ("number", "25.48"), ("number", "0.01 ± 4e-05"), ("number", "50,000"),
        (None, "yes"),
        (None, "3"), ("number", "–"), ("number", "–"), ("number", "–"), ("number", "1,797"), (None, "no"),
    ]  # fmt: skip


def test_details_are_complete(written):
    pytest.importorskip("jinja2")
    page = Page("run")
    page.details("protocol", {"sigma": 0.3162277660168379, "labels": None, "samples": {"mult": [1, 2], "n": 50_000}})
    shown = Reader(written(page)).text.split()
    assert shown[-11:] == ["protocol", "sigma", "0.3162277660168379", "labels", "–", "samples", "mult", "1,", "2",
                           "n", "50000"]  # fmt: skip


def test_a_page_is_written_completely_or_not_at_all(page, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"page\.html: "):
        page().write(tmp_path / "file" / "page.html")
    (tmp_path / "page.html").mkdir()
    with pytest.raises(InputError, match=r"page\.html: "):
        page().write(tmp_path / "page.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "page.html"]


def test_a_page_without_jinja2(monkeypatch):
    missing(monkeypatch, "jinja2")
    with pytest.raises(InputError, match=r"jinja2; .* pip install 'tdpm-cli\[report\]'"):
        Page("title")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH")
def test_on_a_phone_the_page_does_not_scroll_sideways_but_its_tables_do(page, written, tmp_path):
    framed = html.escape(written(page()).replace("<details>", "<details open>"))
    measure = """
        const root = frame.contentDocument.documentElement, box = root.querySelector(".scroll")
        document.title = [root.scrollWidth, box.scrollWidth > box.clientWidth]
    """
    (tmp_path / "frame.html").write_text(
        "<!DOCTYPE html><meta charset=utf-8><title>unmeasured</title>"
        f"<script>function measure(frame) {{ {measure} }}</script>"
        f'<iframe width=360 height=800 style="border: 0" onload="measure(this)" srcdoc="{framed}"></iframe>'
    )
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "<title>360,true</title>" in done.stdout, done.stdout[:200] + done.stderr
