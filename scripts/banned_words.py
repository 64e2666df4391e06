"""Find words that the language rules of CONTRIBUTING.md ban, in the prose and the names of a tree.

    python scripts/banned_words.py [FOLDER]

Prose: Markdown pages without their code, and docstrings, comments and sentences in strings of tdpm_cli, scripts,
presets and tests. Names: functions, classes, arguments and variables of tdpm_cli, scripts and tests.
Prints each find as FILE:LINE: WORD -> USE, and ends with status 1 if there is any.
"""

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROSE = {  # pattern -> what to write instead; matched case-insensitively, in prose only
    r"told|tells?|telling": "report, print, show, distinguish",
    r"says?|said|saying": "report, state, contain",
    r"stands?(?! for)|stood|standing": "is, remains, appears",
    r"lies?|lying|lay": "is, is in",
    r"be had|is had|are had": "is available",
    r"anew": "again, recompute",
    r"alike": "both, in the same way",
    r"too(?=[.,;:)]|$)": "also (before the verb)",
    r"as well(?! as)(?=[.,;:)]|$)": "also (before the verb)",
    r"adopt(?:s|ed|ing)?": "convert, import",
    r"tortur\w+|victims?": "stress test",
    r"(?<!no )(?:games?)": "adversarial training",
    r"(?<!markov )chains?(?! rule)": "schedule",
    r"(?:the|a|its|every|each|at|before|after|no) cut|cuts": "truncation point",
    r"at hand": "available",
    r"foreign": "other projects', external",
    r"claim(?:s|ed|ing)?": "lock",
    r"(?:is|are|was|were|be|been|being|as|not|none|nothing|the|where|if|those|what|one) given"
    r"|given (?:by|with|here|there|in|on|at)|is not given": "pass, set, specify",
    r"(?:any|the|how) words?(?= that)|in words|light words|wrong words?": "name, value, option",
    r"verbs?": "command",
    r"the rooms?|the house|the floors?|doors?": "package, layer",
    r"there any ?more|not any ?more": "no longer, not found",
    r"without fail": "(plain statement)",
    r"for want of|of itself|be it|so much for": "(plain statement)",
}
ALLOWED_PROSE = (  # legitimate uses, taken out before the search
    r"stand-in",
    r"power cuts?",
    r"chain rule",
    r"hash chain",
)
NAMES = {  # a part of an identifier (between underscores) -> what to write instead
    "told": "text, message, output",
    "tell": "report",
    "tells": "reports",
    "made": "components, result",
    "found": "result, components",
    "given": "raw_condition, options, config",
    "asked": "requested",
    "adopt": "convert",
    "adopted": "converted",
    "foreign": "external",
    "claim": "lock",
    "claims": "locks",
    "claimed": "locked",
    "game": "adversarial",
    "chain": "schedule",
    "cut": "truncation, crop",
    "words": "text, options, labels",
    "assembly": "components",
    "placing": "placement",
    "whole": "untruncated, complete",
    "victim": "process",
    "victims": "processes",
    "torture": "stress",
    "tortures": "stress_tests",
}
ALLOWED_NAMES = {"found_inf"}  # PyTorch's own
ROOTS = ("tdpm_cli", "scripts", "presets", "tests")
TABLES = {"scripts/banned_words.py"}  # contains the words themselves

_PROSE = {re.compile(rf"(?<![\w-])(?:{pattern})(?![\w-])", re.IGNORECASE | re.MULTILINE): use
          for pattern, use in PROSE.items()}  # fmt: skip
_ALLOWED = re.compile("|".join(ALLOWED_PROSE), re.IGNORECASE)
_CODE = re.compile(r"```.*?```|^ {4,}.*?$|``[^\n]*?``|`[^`]*`|\]\([^)]*\)|https?://\S+", re.DOTALL | re.MULTILINE)
_INLINE_CODE = re.compile(r"`[^`]*`|https?://\S+")


@dataclass(frozen=True)
class Find:
    """A banned word and where it is."""

    path: str
    line: int
    word: str
    use: str


def finds(root: Path, folders: Iterable[str] = ROOTS) -> list[Find]:
    """Return every banned word in the prose and names of a tree, by file and line."""
    result = []
    for path in [*sorted(root.glob("*.md")), *sorted((root / "docs").glob("*.md"))]:
        result += _in_text(path.relative_to(root).as_posix(), _blank(_CODE, path.read_text(encoding="utf-8")))
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.suffix == ".py" and name not in TABLES:
                source = path.read_text(encoding="utf-8")
                for line, text in prose(source):
                    result += _in_text(name, _blank(_INLINE_CODE, text), line)
                result += _in_names(name, source)
            elif path.suffix in (".yaml", ".yml"):
                result += _in_text(name, _comments_of_yaml(path.read_text(encoding="utf-8")))
    return sorted(set(result), key=lambda find: (find.path, find.line, find.word))


def prose(source: str) -> Iterator[tuple[int, str]]:
    """Yield the comments, docstrings and sentences in strings of Python source, each with its first line."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not re.match(r"#\s*(?:fmt|noqa|type|ruff):", token.string):
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, node.value


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the names that Python source defines: functions, classes, arguments, variables and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def _in_names(path: str, source: str) -> Iterator[Find]:
    for line, name in names(ast.parse(source)):
        parts = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_")
        for part in set(parts) & NAMES.keys():
            if name not in ALLOWED_NAMES:
                yield Find(path, line, f"{name} (name)", NAMES[part])


def _in_text(path: str, text: str, first_line: int = 1) -> list[Find]:
    text = _blank(_ALLOWED, text)
    return [
        Find(path, first_line + text.count("\n", 0, match.start()), match.group().lower(), use)
        for pattern, use in _PROSE.items()
        for match in pattern.finditer(text)
    ]


def _blank(pattern: re.Pattern[str], text: str) -> str:
    """Take out what matches, keeping the lines."""
    return pattern.sub(lambda match: "…" + "\n" * match.group().count("\n"), text)


def _comments_of_yaml(text: str) -> str:
    return "\n".join(line.partition("#")[2] if "#" in line else "" for line in text.split("\n"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="a checkout (this one)")
    result = finds(parser.parse_args().folder)
    for find in result:
        print(f"{find.path}:{find.line}: {find.word} -> {find.use}")
    print(f"{len(result)} banned words", file=sys.stderr)
    sys.exit(1 if result else 0)


if __name__ == "__main__":
    main()
