"""The reference page names every check of preflight, and says whether it can end a start."""

from pathlib import Path

from dormouse_engine.preflight import judge
from tests.engine.preflight.test_checks import ERRORS, GOOD, WARNINGS

PAGE = Path(__file__).parents[3] / "docs/reference/engine-image.md"


def test_each_check_has_its_row_and_each_row_its_check() -> None:
    section = PAGE.read_text().split("## Preflight")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line[:1] == "|"
    ]
    shown = {name: (bool(error), bool(warning)) for name, error, warning in rows[2:]}
    errors, warnings = ({check for check, *_ in table} for table in (ERRORS, WARNINGS))
    assert shown == {one.check: (one.check in errors, one.check in warnings) for one in judge(GOOD)}
