"""Counts stilted English in docstrings, comments and strings, as the step "Prose" of ``make check``.

Each class of words has a limit per 1,000 words, in the product's code and in the tests. ``python -m launcher.prose``
prints all counts and the files with most of them.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

LIMIT = 0.25
"""Occurrences of a class per 1,000 words."""
WORST_FILES = 10
PRODUCT = ("dags", "plugins", "launcher", "practice", "server", "model_images", "benchmarks", "docs")
TESTS = ("tests",)
# class → its pattern and the remedy
CLASSES = {
    "unnamed actor": (r"nobody|somebody|whoever|whom", "name the actor: a task, another run, an operator"),
    "tell": (r"told|tells?|telling", "report, log, print, show; identified by"),
    "say": (r"said|says?|saying", "report, log, print, show"),
    "free relative": (r"what\s(?:is|was|it|they|a|the|an|came|becomes?|became)", "a noun, such as its outputs"),
    "archaic": (r"anew|likewise|but\sfor", "again, also, except"),
    "own": (r"of\s(?:its|their|our|his)\sown", "separate, another, its"),
    "demonstrative": (r"(?:those|one)\s(?:that|who)", "a noun"),
    "indefinite": (r"whatever|whichever|wherever", "any, all, where"),
    "left": (r"left\sbehind|is\sleft|leaves?\sbehind", "leftover, remaining"),
    "jargon": (
        r"knobs?|hand(?:s|ed)?\sin|the\sword|patience|keepsakes?|lesson",
        "option, submit, timeout, training data",
    ),
}
_PATTERNS = {name: re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE) for name, (pattern, _) in CLASSES.items()}
_WORD = re.compile(r"[A-Za-z']+")


@dataclass
class Count:
    """The counts of an area, such as the tests: its words, and the occurrences of each class and in each file."""

    area: str
    words: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)

    def rate(self, name: str) -> float:
        """Give a class's occurrences per 1,000 words."""
        return 1_000 * self.classes[name] / max(self.words, 1)

    def worst_files(self) -> list[str]:
        """List the files with most occurrences."""
        return [f"  {number:5} {name}" for name, number in self.files.most_common(WORST_FILES) if number]


def prose_of(source: str) -> str:
    """Extract the prose of a Python file: its comments, docstrings, and strings that contain a space."""
    parts: list[str] = []
    with suppress(SyntaxError, tokenize.TokenError):  # ruff reports these
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        parts += [token.string for token in tokens if token.type == tokenize.COMMENT]
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                parts.append(node.value)
    return "\n".join(parts)


def count(root: Path) -> tuple[Count, Count]:
    """Count all classes in a checkout, in the product's code and in the tests."""
    product, tests = Count("product"), Count("tests")
    for counted, folders in ((product, PRODUCT), (tests, TESTS)):
        for path in (path for folder in folders for path in sorted((root / folder).rglob("*.py"))):
            prose = prose_of(path.read_text(encoding="utf-8", errors="replace"))
            found = Counter({name: len(pattern.findall(prose)) for name, pattern in _PATTERNS.items()})
            counted.words += len(_WORD.findall(prose))
            counted.classes.update(found)
            counted.files[str(path.relative_to(root))] = found.total()
    return product, tests


def findings(root: Path) -> str:
    """Describe the classes above the limit, each with its remedy, and the worst files; empty if there are none."""
    lines: list[str] = []
    for counted in count(root):
        if above := [name for name in CLASSES if counted.rate(name) > LIMIT]:
            lines.append(f"{counted.area}, {counted.words:,} words, at most {LIMIT} per 1,000:")
            lines += [f"  {name} {counted.rate(name):.2f}: use {CLASSES[name][1]}" for name in above]
            lines += counted.worst_files()
    return "\n".join(lines)


def main(root: Path) -> int:
    """Print all counts, and the findings; returns 1 if there are any."""
    for counted in count(root):
        print(f"{counted.area}: {counted.words:,} words in {len(counted.files)} files")
        for name in CLASSES:
            print(f"  {name:16} {counted.rate(name):5.2f}  ({counted.classes[name]})")
        print("\n".join(counted.worst_files()))
    report = findings(root)
    print(report)
    return 1 if report else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent.parent))
