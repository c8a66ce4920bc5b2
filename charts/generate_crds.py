#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["pyyaml"]
# ///
"""Generate the templates of the chart `dormouse-crds` from `crds/`.

`crds/*.yaml` are the source of truth and also work alone (`kubectl apply --server-side -f crds/`). The
chart needs the same plus what only Helm knows: its labels, and the annotation that keeps a definition
when the release goes. Everything but `metadata` is copied as text, not parsed and dumped, so that
comments and order survive and a diff of one reads like a diff of the other.

    python charts/generate_crds.py            write the templates
    python charts/generate_crds.py --check    exit 1 and name the files that differ
"""

import argparse
import json
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "crds"
TARGET = ROOT / "charts" / "dormouse-crds" / "templates"

BANNER = "{{/* Generated from crds/%s by charts/generate_crds.py. Do not edit. */ -}}\n"
METADATA = """\
metadata:
  name: %s
  labels:
    {{- include "dormouse-crds.labels" (list . `%s`) | nindent 4 }}
  {{- with include "dormouse-crds.annotations" (list . `%s`) }}
  annotations:
    {{- . | nindent 4 }}
  {{- end }}
"""


def to_template(name: str, text: str) -> str:
    """Return the Helm template for the definition in `text`, read from the file `name` of `crds/`.

    Raises:
        ValueError: the text is not one definition with a name, labels and annotations at most.

    """
    documents = list(yaml.safe_load_all(text))
    if len(documents) != 1 or documents[0]["kind"] != "CustomResourceDefinition":
        raise ValueError(f"crds/{name}: expected one CustomResourceDefinition")
    metadata = documents[0]["metadata"]
    if unknown := metadata.keys() - {"name", "labels", "annotations"}:
        raise ValueError(f"crds/{name}: the generator does not know metadata.{unknown.pop()}")
    lines = text.splitlines(keepends=True)
    # The header speaks about the source file, so it stays there.
    first = next(n for n, line in enumerate(lines) if line.startswith("apiVersion:"))
    start = lines.index("metadata:\n")
    end = next((n for n in range(start + 1, len(lines)) if lines[n][0].isalpha()), len(lines))
    labels, annotations = (json.dumps(metadata.get(key, {})) for key in ("labels", "annotations"))
    return "".join(
        [
            BANNER % name,
            *map(_escaped, lines[first:start]),
            METADATA % (metadata["name"], labels, annotations),
            *map(_escaped, lines[end:]),
        ]
    )


def _escaped(line: str) -> str:
    # What Go's templates would read as an action (a CEL message or a default may hold braces) stays text.
    return line.replace("{{", '{{ "{{" }}')


def wanted() -> dict[Path, str]:
    """Return what the generated templates must hold, by path."""
    sources = sorted(SOURCE.glob("*.yaml"))
    return {TARGET / path.name: to_template(path.name, path.read_text()) for path in sources}


def main() -> int:
    """Write the templates, or with `--check` say which ones are out of date."""
    parser = argparse.ArgumentParser(description="Generate the chart dormouse-crds from crds/.")
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
