"""The variables that become flags, and what each refuses."""

from __future__ import annotations

import pytest

from dormouse_engine.serve.errors import ServeError
from dormouse_engine.serve.settings import VARIABLES, read


def test_no_variable_gives_no_flag() -> None:
    assert read({"PATH": "/bin", "VLLM_PORT": "1"}) == (None, [])


@pytest.mark.parametrize(
    ("name", "raw", "flags"),
    [
        ("DORMOUSE_SERVED_MODEL_NAME", "qwen3, default", ["--served-model-name", "qwen3", "default"]),
        ("DORMOUSE_HOST", "::", ["--host", "::"]),
        ("DORMOUSE_PORT", "65535", ["--port", "65535"]),
        ("DORMOUSE_DTYPE", " bfloat16 ", ["--dtype", "bfloat16"]),
        ("DORMOUSE_QUANTIZATION", "fp8", ["--quantization", "fp8"]),
        ("DORMOUSE_LOAD_FORMAT", "safetensors", ["--load-format", "safetensors"]),
        ("DORMOUSE_MAX_MODEL_LEN", "32k", ["--max-model-len", "32k"]),
        ("DORMOUSE_MAX_NUM_SEQS", "64", ["--max-num-seqs", "64"]),
        ("DORMOUSE_GPU_MEMORY_UTILIZATION", "1", ["--gpu-memory-utilization", "1"]),
        ("DORMOUSE_KV_CACHE_MEMORY_BYTES", "1.5Gi", ["--kv-cache-memory-bytes", "1.5Gi"]),
        ("DORMOUSE_TENSOR_PARALLEL_SIZE", "2", ["--tensor-parallel-size", "2"]),
        ("DORMOUSE_ENFORCE_EAGER", "True", ["--enforce-eager"]),
        ("DORMOUSE_ENFORCE_EAGER", "off", []),
        ("DORMOUSE_DTYPE", "", []),
    ],
)
def test_a_variable_becomes_its_flag(name: str, raw: str, flags: list[str]) -> None:
    assert read({name: raw, "DORMOUSE_MODEL": "/models/m"}) == ("/models/m", flags)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("DORMOUSE_MODEL", "--headless"),
        ("DORMOUSE_SERVED_MODEL_NAME", "a,,b"),
        ("DORMOUSE_SERVED_MODEL_NAME", "a,--grpc"),
        ("DORMOUSE_HOST", "-x"),
        ("DORMOUSE_PORT", "0"),
        ("DORMOUSE_PORT", "65536"),
        ("DORMOUSE_PORT", "eight"),
        ("DORMOUSE_MAX_MODEL_LEN", "long"),
        ("DORMOUSE_MAX_NUM_SEQS", "-1"),
        ("DORMOUSE_MAX_NUM_SEQS", "²"),
        ("DORMOUSE_GPU_MEMORY_UTILIZATION", "85"),
        ("DORMOUSE_GPU_MEMORY_UTILIZATION", "0"),
        ("DORMOUSE_GPU_MEMORY_UTILIZATION", "nan"),
        ("DORMOUSE_KV_CACHE_MEMORY_BYTES", "lots"),
        ("DORMOUSE_TENSOR_PARALLEL_SIZE", "1.5"),
        ("DORMOUSE_ENFORCE_EAGER", "perhaps"),
    ],
)
def test_what_can_not_be_meant_is_refused_by_name(name: str, raw: str) -> None:
    with pytest.raises(ServeError, match=name) as refused:
        read({name: raw})
    assert "give" in str(refused.value)


def test_each_variable_is_there_once_and_ours() -> None:
    names = [variable.name for variable in VARIABLES]
    assert len({*names}) == len(names)
    assert all(name.startswith("DORMOUSE_") for name in names)
