#!/usr/bin/env bash
# Builds the wheels of the native pool into dist/ and tries each in an environment that has nothing else.
#
#   native/wheels.sh PYTHON...      versions (3.12) or interpreters (/usr/bin/python3.12)
#
# CPython 3.11 gets a wheel of its own; one stable-ABI wheel, made with 3.12, serves 3.12 and every later version.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

UV=${UV:-uv}
native/needs.sh compiler
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tried=0

for python in "$@"; do
    if ! interpreter=$("$UV" python find --no-python-downloads "$python" 2>/dev/null); then
        printf 'LEFT OUT: no CPython %s here; name interpreters in PYTHONS to use others\n' "$python" >&2
        continue
    fi
    version=$("$interpreter" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    # From 3.12 on one wheel serves all: make it with the first of them.
    if [[ $version == 3.11 || ! -e $work/abi3 ]]; then
        native/needs.sh headers "$interpreter"
        "$UV" build --quiet --wheel --python "$interpreter" --require-hashes --build-constraints requirements/native.txt \
            --out-dir "$work/wheels" native
        [[ $version == 3.11 ]] || touch "$work/abi3"
    fi
    "$UV" venv --quiet --python "$interpreter" "$work/$version"
    "$UV" pip install --quiet --offline --no-index --find-links "$work/wheels" --python "$work/$version" dormouse-native
    "$work/$version/bin/python" - <<'TRY'
import importlib.metadata
import sys
import dormouse_native

carried = [file.name for file in importlib.metadata.files("dormouse-native")]
for needed in ("py.typed", "_core.pyi", "LICENSE", "LICENSE.third-party"):
    assert needed in carried, f"the wheel lacks {needed}"
pool = dormouse_native.Pool("host", capacity=64 << 20, check_host_memory=False)
address = pool.malloc(4 << 20, "weights")
pool.sleep(1)
pool.wake()
pool.free(address)
print(f"CPython {sys.version.split()[0]}: {dormouse_native._core.__file__.rsplit('/', 1)[1]} sleeps and wakes")
TRY
    tried=$((tried + 1))
done

((tried)) || { printf 'no wheel was made\n' >&2; exit 1; }
mkdir -p dist
cp "$work"/wheels/*.whl dist/
ls dist/dormouse_native-*.whl
