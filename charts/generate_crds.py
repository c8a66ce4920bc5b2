#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# ///
"""Generate the templates of the chart `dormouse-crds` from `crds/`.

`crds/*.yaml` are the source of truth and also work alone (`kubectl apply --server-side -f crds/`). The
chart needs the same text plus what only Helm knows: labels, and the annotation that keeps a definition
when the release goes. The files are changed as text, not parsed and dumped, so that comments and order
survive and a diff of one reads like a diff of the other.

    python charts/generate_crds.py            write the templates
    python charts/generate_crds.py --check    exit 1 and name the files that differ
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "crds"
TARGET = ROOT / "charts" / "dormouse-crds" / "templates"

BANNER = "{{/* Generated from crds/{NAME} by charts/generate_crds.py. Do not edit. */ -}}\n"
LABELS = '    {{- include "dormouse-crds.labels" . | nindent 4 }}\n'
ANNOTATIONS = "    {{- . | nindent 4 }}\n"


def to_template(name: str, text: str) -> str:
    """Return the Helm template for the definition in `text`, read from the file `name` of `crds/`.

    Raises:
        ValueError: the text has no `metadata:` at its top level, or more than one document.

    """
    lines = text.removeprefix("---\n").splitlines(keepends=True)
    if any(line.startswith("---") for line in lines):
        raise ValueError(f"crds/{name}: one document per file, please")
    starts = [number for number, line in enumerate(lines) if line.rstrip() == "metadata:"]
    if len(starts) != 1:
        raise ValueError(f"crds/{name}: expected exactly one top-level 'metadata:', found {len(starts)}")
    start = starts[0] + 1
    end = next((n for n in range(start, len(lines)) if not lines[n].startswith((" ", "#", "\n"))), len(lines))
    # What Go's templates would read as an action (a CEL message or a default may hold braces) stays text.
    escaped = [line.replace("{{", '{{ "{{" }}') for line in lines]
    metadata = _with_block(escaped[start:end], "labels", [LABELS])
    guarded = ['{{- with include "dormouse-crds.annotations" . }}\n', ANNOTATIONS, "{{- end }}\n"]
    if "  annotations:\n" not in metadata:
        guarded.insert(1, "  annotations:\n")
        metadata += guarded
    else:
        metadata = _with_block(metadata, "annotations", guarded)
    return BANNER.replace("{NAME}", name) + "".join([*escaped[:start], *metadata, *escaped[end:]])


def _with_block(metadata: list[str], key: str, block: list[str]) -> list[str]:
    """Put `block` right under `key:` of the metadata, adding the key when it is not there."""
    head = f"  {key}:\n"
    if head not in metadata:
        return [*metadata, head, *block]
    at = metadata.index(head) + 1
    return [*metadata[:at], *block, *metadata[at:]]


def wanted() -> dict[Path, str]:
    """Return what the generated templates must hold, by path."""
    return {
        TARGET / path.name: to_template(path.name, path.read_text()) for path in sorted(SOURCE.glob("*.yaml"))
    }


def main() -> int:
    """Write the templates, or with `--check` say which ones are out of date."""
    parser = argparse.ArgumentParser(
        description="Generate the templates of the chart dormouse-crds from crds/."
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 on drift")
    check = parser.parse_args().check
    want = wanted()
    if not want:
        sys.stderr.write("no definitions in crds/\n")
        return 1
    have = {path: path.read_text() for path in TARGET.glob("*.yaml")}
    stale = sorted(path for path in want | have if want.get(path) != have.get(path))
    if check:
        for path in stale:
            sys.stderr.write(f"{path.relative_to(ROOT)} is out of date: python charts/generate_crds.py\n")
        return 1 if stale else 0
    for path in stale:
        if path in want:
            path.write_text(want[path])
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
