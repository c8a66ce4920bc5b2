"""`python -m tests.image [NAME…]`: build the images that can be built here, and try each.

Where Docker or Podman answers, they are real images. Elsewhere the steps run in plain folders, and what that leaves out
is said at the end. NAME is one of operator, standin, cpu, cuda, ascend; without one, all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.image import plain, smoke
from tests.image.container import ContainerImage, engine, why_no_base
from tests.image.versions import ROOT, Recipe, recipes
from tests.vllm_cpu import environment, model

LEFT_OUT = "LEFT OUT: {name}: {what}"


def main(names: list[str]) -> int:
    """0 when all that could be built was, and did what it must; 2 for a name that is none."""
    known = recipes(os.environ)
    if unknown := [name for name in names if name not in known]:
        print(f"no such image: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [recipe for name, recipe in known.items() if name in (names or known)]
    for recipe in chosen:
        hadolint = Path(sys.executable).with_name("hadolint")
        subprocess.run([str(hadolint), str(recipe.dockerfile)], check=True)
    found = engine()
    left_out = (
        [] if found else [LEFT_OUT.format(name="all", what="container images: no container engine answers")]
    )
    for recipe in chosen:
        left_out += _one(recipe, found)
    print(
        "\n".join(["", *left_out, f"images tried: {', '.join(recipe.name for recipe in chosen)}"]), flush=True
    )
    return 0


def _one(recipe: Recipe, found: str | None) -> list[str]:
    base = recipe.arguments["BASE"]
    if found is not None and (why := why_no_base(found, base)) is not None:
        return [
            LEFT_OUT.format(name=recipe.name, what=f"a container image on {base}: {why}"),
            *_one(recipe, None),
        ]
    if found is None and recipe.name in {"cpu", "cuda", "ascend"}:
        # Without a compiler for the pool there is nothing to build; native/needs.sh has said how to get one.
        wanted = [str(ROOT / "native" / "needs.sh"), "compiler", "headers", sys.executable]
        if subprocess.run(wanted, check=False).returncode != 0:
            return [LEFT_OUT.format(name=recipe.name, what="this machine can't build the memory pool")]
    environment.say(f"image {recipe.name}: {recipe.tag if found else 'in plain folders'}")
    folder = Path(tempfile.mkdtemp(prefix=f"dormouse-image-{recipe.name}-"))
    try:
        python = plain.vllm_cpu_here()
        made = model.ensure(python, environment.cache_home()) if python and recipe.name == "cpu" else None
        if found is not None:
            shown = smoke.check(ContainerImage.build(found, recipe), folder, made)
            missing = ["starting real vLLM: there is no model (make test-vllm-cpu makes one)"]
            left_out = missing if recipe.name == "cpu" and made is None else []
        else:
            image = plain.build(recipe, folder / "stages")
            shown, left_out = smoke.check(image, folder, made), image.left_out
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(f"    {line}" for line in shown), flush=True)
    if recipe.name in {"cuda", "ascend"}:
        left_out.append("a start: it takes the device")
    return [LEFT_OUT.format(name=recipe.name, what=what) for what in left_out]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
