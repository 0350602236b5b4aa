#!/usr/bin/env python3
"""Rewrites the parts of README.md that come from elsewhere, each between two markers:

    <!-- from krait ops --markdown -->  the op x backend table, as the command prints it
    <!-- from examples/NAME.cpp -->     the lines between "// README begin" and "// README end"
    <!-- end -->

    scripts/update_readme.py [KRAIT]    KRAIT: the command; default build/dev/bin/krait

A column of the table whose backend this build or machine does not have stays as it is.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
SECTION = re.compile(r"(<!-- from (.+?) -->\n)(.*?)(<!-- end -->\n)", re.DOTALL)


def snippet(path):
    """The marked lines of a source file, as a code block."""
    text = (ROOT / path).read_text(encoding="utf-8")
    parts = re.findall(r"// README begin\n(.*?)// README end\n", text, re.DOTALL)
    if len(parts) != 1:
        raise ValueError(f"{path}: expected one part between README begin and README end")
    return f"```cpp\n{parts[0]}```\n"


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def merged_table(held, printed):
    """The printed table, with the columns that only the held one has, in the order it has them."""
    old, new = ([cells(line) for line in text.splitlines()] for text in (held, printed))
    names = old[0] if old and set(new[0]) <= set(old[0]) else new[0]
    before = {row[0]: dict(zip(old[0], row)) for row in old[2:]}
    rows = [names, ["---"] * len(names)]
    for row in new[2:]:
        known = {**before.get(row[0], {}), **dict(zip(new[0], row))}
        rows.append([known.get(name, "–") for name in names])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def content(source, held, krait):
    """What belongs into the section from `source`, which holds `held` now."""
    if source.startswith("krait "):
        printed = subprocess.run([krait, *source.split()[1:]], check=True, capture_output=True,
                                 encoding="utf-8").stdout
        return merged_table(held, printed)
    return snippet(source)


def sections(text):
    """Where each section of README.md comes from, and what it holds now."""
    return {match[2]: match[3] for match in SECTION.finditer(text)}


def updated(text, krait):
    return SECTION.sub(lambda match: match[1] + content(match[2], match[3], krait) + match[4], text)


if __name__ == "__main__":
    command = sys.argv[1] if len(sys.argv) > 1 else ROOT / "build/dev/bin/krait"
    README.write_text(updated(README.read_text(encoding="utf-8"), command), encoding="utf-8")
