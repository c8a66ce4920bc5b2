"""The parts of the benchmark that are pure: shapes, medians, ratios, what is written and when."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from dormouse_native.bench.__main__ import main
from dormouse_native.bench.bystander import summary
from dormouse_native.bench.measure import Record, Step, host_bytes, median, ratio
from dormouse_native.bench.plain import checksum, fill
from dormouse_native.bench.report import Report, gpu_summary, local_summary
from dormouse_native.bench.shapes import GIB, MIB, SHAPES, next_power_of_two, rounded_bytes
from dormouse_native.bench.stock import Block, Stock

if TYPE_CHECKING:
    from pathlib import Path


def test_the_real_shape_has_the_segments_that_vllm_allocates_for_qwen3_32b() -> None:
    shape = SHAPES["qwen3-32b"]
    assert len(shape.weights) == 260
    assert len(shape.kv_cache) == 66
    assert round(shape.weights_bytes / GIB, 2) == 61.04
    assert round(sum(shape.kv_cache) / GIB, 2) == 19.00


def test_the_real_shapes_weights_hold_the_models_parameters_and_little_else() -> None:
    hidden, feed_forward, heads, vocabulary = 5120, 25600, 8192, 151936
    layer = (10240 + heads) * hidden + 3 * feed_forward * hidden + 2 * hidden + 2 * 128
    parameters = 2 * (64 * layer + 2 * vocabulary * hidden + hidden)
    assert round(parameters / GIB, 2) == 61.02
    assert 0 <= SHAPES["qwen3-32b"].weights_bytes - parameters < 20 * MIB


def test_the_stock_pattern_holds_68_gib_for_the_real_shape() -> None:
    assert round(rounded_bytes(SHAPES["qwen3-32b"]) / GIB, 1) == 68.0


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_segments_are_whole_pages_of_a_device(name: str) -> None:
    assert not [size for _, sizes in SHAPES[name].tags() for size in sizes if size % (2 * MIB)]


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_level_2_drops_most_of_the_weights_and_of_the_kv_cache_in_every_shape(name: str) -> None:
    shape = SHAPES[name]
    for _, sizes in shape.tags():
        assert sum(size for size in sizes if size > shape.keep_up_to) > 0.85 * sum(sizes)


@pytest.mark.parametrize(
    ("size", "rounded"), [(1, 1), (2, 2), (3, 4), (80 * MIB, 128 * MIB), (GIB, GIB), (GIB + 1, 2 * GIB)]
)
def test_rounding_takes_the_next_power_of_two(size: int, rounded: int) -> None:
    assert next_power_of_two(size) == rounded


def test_median_of_nothing_is_nothing() -> None:
    assert median([]) is None
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([4.0, 1.0, 2.0, 3.0]) == 2.5


@pytest.mark.parametrize(
    ("above", "below", "result"), [(6.0, 2.0, 3.0), (None, 2.0, None), (6.0, None, None), (6.0, 0.0, None)]
)
def test_a_ratio_needs_both_sides(above: float | None, below: float | None, result: float | None) -> None:
    assert ratio(above, below) == result


def test_the_kernel_counts_this_process_and_the_machine() -> None:
    assert host_bytes("VmRSS") < host_bytes("MemTotal")
    with pytest.raises(LookupError, match="VmNothing"):
        host_bytes("VmNothing")


def record_of(subject: str, **figures: list[float]) -> Record:
    record = Record(subject)
    for figure, values in figures.items():
        for value in values:
            record.step(figure, lambda value=value: Step(value))  # type: ignore[misc]
    return record


def test_the_local_summary_divides_stock_by_ours() -> None:
    ours = record_of("ours", first_sleep=[1.0], later_sleep=[0.5, 0.1, 0.2], wake=[2.0])
    stock = record_of("stock", first_sleep=[3.0], later_sleep=[1.0], wake=[1.0])
    sim = record_of("sim", first_sleep=[1.5], later_sleep=[0.05], wake=[1.19])
    assert local_summary({"ours": ours, "stock": stock, "sim": sim}) == {
        "later_sleep_x": 5.0,
        "first_sleep_x": 3.0,
        "wake_x": 0.5,
        "sim_h200": {"first_sleep_s": 1.5, "later_sleep_s": 0.05, "wake_s": 1.19},
    }


def test_the_gpu_summary_holds_ours_beside_each_rival_and_the_link() -> None:
    shape = SHAPES["qwen3-32b"]
    link = Record("link")
    link.value("to_device", shape.weights_bytes / 1.2)
    link.value("to_host", shape.weights_bytes / 1.1)
    records = {
        "link": link,
        "ours-ring": record_of("ours-ring", first_sleep=[1.5], wake=[1.25], level2_sleep=[0.1]),
        "cumem": record_of("cumem", first_sleep=[21.0], wake=[2.5]),
    }
    summary_ = gpu_summary(records, shape)
    assert summary_["ours-ring_x_cumem"] == {"first_sleep": 14.0, "wake": 2.0}
    assert summary_["ours-ring_wake_of_link"] == 0.96
    assert summary_["link_seconds"] == {"to_device": 1.2, "to_host": 1.1}
    assert summary_["cumem"] == {"first_sleep": 21.0, "wake": 2.5}


@pytest.mark.parametrize(("pulls", "factor"), [(True, 1.25), (False, None)])
def test_wakes_at_once_stand_beside_those_that_pull_nothing(*, pulls: bool, factor: float | None) -> None:
    ours = record_of("ours-registered", wake_at_once=[0.8], wake_at_once_unpulled=[1.0, 2.0, 0.5])
    ours.fact("store", {"pulls": pulls})
    ours.fact("pulled_gib_of_a_wake_at_once", 7.5)
    assert local_summary({"ours-registered": ours})["ours-registered_pulls"] == {
        "wake_at_once": 0.8,
        "wake_at_once_unpulled": 1.0,
        "x": factor,
        "pulled_gib": 7.5,
    }
    records = {"ours-ring": record_of("ours-ring", wake_at_once=[1.0])}
    assert not local_summary(records), "a ring has nothing to compare"


def test_wakes_at_rest_stand_beside_those_that_nobody_collected_for() -> None:
    ours = record_of("ours-registered", wake=[1.25], wake_uncollected=[1.5, 2.0, 1.0])
    told = local_summary({"ours-registered": ours})["ours-registered_collects"]
    assert told == {"wake": 1.25, "wake_uncollected": 1.5, "x": 1.2}


def test_a_failed_section_is_written_and_the_next_one_runs(tmp_path: Path) -> None:
    report = Report(tmp_path / "out.json", {})

    def break_down(record: Record) -> None:
        record.value("wake", 1.0)
        raise MemoryError("no room")

    report.section("first", break_down)
    half_way = json.loads((tmp_path / "out.json").read_text())
    assert half_way["records"]["first"]["figures"] == {"wake": [1.0]}
    report.section("second", lambda record: record.value("wake", 2.0))
    assert report.finish({}) == 1
    whole = json.loads((tmp_path / "out.json").read_text())
    assert "no room" in whole["failures"]["first"]
    assert whole["records"]["second"]["medians"] == {"wake": 2.0}
    assert whole["summary"]["failed"] == ["first"]


@pytest.mark.parametrize(
    "words", [("--driver", "cude"), ("--driver", "cuda", "--compare", "cumem,tmp"), ("--stores", "rings")]
)
def test_an_unknown_word_is_refused_before_anything_is_measured(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 2
    assert "is not one of" in capsys.readouterr().err


def test_a_wrong_byte_fails_the_run() -> None:
    report = Report(None, {})
    report.section("ours", lambda record: record.check("weights differ", right=False))
    summary_: dict[str, object] = {}
    assert report.finish(summary_) == 1
    assert summary_["wrong"] == {"ours": ["weights differ"]}


def test_a_checksum_sees_one_byte_and_its_place() -> None:
    block = Block(4 * MIB)
    fill(block.address, block.size, bytes(range(251)))
    whole = checksum(block.address, block.size)
    assert checksum(block.address + MIB, MIB, checksum(block.address, MIB)) == checksum(
        block.address, 2 * MIB
    )
    assert checksum(block.address, 2 * MIB) != checksum(block.address + 2 * MIB, 2 * MIB)
    block.drop()
    assert checksum(block.address, block.size) != whole
    block.close()


def test_the_stock_pattern_keeps_weights_over_sleeps_and_reuses_its_buffers() -> None:
    stock = Stock(SHAPES["tiny"])
    stock.content.fill(1)
    before = stock.content.checksum()
    for _ in range(2):
        stock.sleep(1)
        assert stock.content.checksum() != before
        stock.wake()
        assert stock.content.checksum() == before
    held = sum(block.size for blocks in stock._cache.values() for block in blocks)
    assert held == rounded_bytes(SHAPES["tiny"])
    stock.content.poke()
    assert stock.content.checksum() != before
    stock.close()


def test_a_bystander_reports_its_worst_wait() -> None:
    assert summary([0.1] * 99 + [7.0]) == {"copies": 100, "p50": 0.1, "p99": 7.0, "worst": 7.0}
    assert summary([]) == {"copies": 0}
