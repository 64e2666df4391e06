"""scripts/bench: medians and rows exactly; of each benchmark, a small run whose ratios are those of its figures."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.benchmarks.__main__ import BENCHMARKS
from scripts.benchmarks.timing import medians_of, row

ROOT = Path(__file__).parent.parent
ROW = re.compile(
    r"^(?P<name>.{44}) +(?P<value>[\d.,e+]+) (?:of (?P<other>[\d.,e+]+) )?.*?(?:ratio +(?P<ratio>[\d.]+))?$"
)


def number(text):
    return float(text.replace(",", ""))


def benchmark(*arguments):
    """Run a benchmark; return its rows: name -> (value, what it is compared with in the row, ratio)."""
    process = subprocess.run(
        [sys.executable, "-m", "scripts.benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    matches = [match for line in process.stdout.splitlines() if (match := ROW.match(line))]
    return {match["name"].strip(): match for match in matches}


def test_medians_leave_out_the_first_rounds():
    times = {"fast": iter([100.0, 1.0, 2.0, 9.0]), "slow": iter([0.0, 5.0, 4.0, 6.0])}
    medians = medians_of({name: lambda values=values: next(values) for name, values in times.items()}, rounds=3)
    assert medians == {"fast": 2.0, "slow": 5.0}


def test_a_row_names_the_figure_and_its_ratio(capsys):
    row("ours", "12 img/s", 1.504)
    match = ROW.match(capsys.readouterr().out.rstrip("\n"))
    assert (match["name"].strip(), match["value"], match["ratio"]) == ("ours", "12", "1.50")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_describes_its_options(name, capsys, monkeypatch):
    from scripts.benchmarks.__main__ import main

    monkeypatch.setattr(sys, "argv", ["scripts/bench", name, "--help"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    assert BENCHMARKS[name].__doc__.splitlines()[0][:40] in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),  # a row with a ratio -> the rows whose values it divides
    [
        (
            ["train", "--preset", "digits", "--batch", "4", "--rounds", "1"],
            {
                "reference's order of passes, fp32": ("ours", "reference's order of passes, fp32"),
                "reference's, peak of memory": ("ours, peak of memory", "reference's, peak of memory"),
            },
        ),
        (
            ["sample", "--preset", "digits", "--n", "4", "--batch", "4", "--rounds", "1", "--steps", "2"],
            {
                "diffusers' DDIMPipeline, fp32": ("tdpm sample, fp32", "diffusers' DDIMPipeline, fp32"),
                "our network alone": ("our network alone", "tdpm sample, fp32"),
            },
        ),
        (
            ["adversarial", "--batch", "4", "--rounds", "2"],
            {"one pass": ("one pass", "separate passes")},
        ),
        (
            ["attention", "--tokens", "16", "--rounds", "2"],
            {"16 tokens, fused": ("16 tokens, fused", "16 tokens, ours")},
        ),
        (
            ["parallel", "--batch", "8", "--steps", "4", "--rounds", "1"],
            {"2 processes, 1 thread each": ("2 processes, 1 thread each", "1 process, 1 thread")},
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_ratios_are_those_of_the_figures(arguments, expected):
    pytest.importorskip("diffusers")
    rows = benchmark(*arguments)
    assert {name for name, match in rows.items() if match["ratio"]} == set(expected)
    for name, (numerator, denominator) in expected.items():
        quotient = number(rows[numerator]["value"]) / number(rows[denominator]["value"])
        assert float(rows[name]["ratio"]) == pytest.approx(quotient, rel=0.02, abs=0.006)


@pytest.mark.slow
def test_supply_compares_loading_with_the_fastest_training():
    (match,) = benchmark("supply", "digits").values()
    assert float(match["ratio"]) == pytest.approx(number(match["value"]) / number(match["other"]), rel=0.02)
