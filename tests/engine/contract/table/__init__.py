"""The contract's table: every name, signature and call of an engine that we hook or rely on, and why.

One row per fact and set of releases; `rows.py` has the kinds. A row that fails names what moved: look at the new
source, decide what the plugin must do, then change the row.
"""

from __future__ import annotations

from tests.engine.contract.table import allocator, ascend, config, cpu, http, kept, residual, startup, workers

TABLE = (
    *allocator.ROWS,
    *workers.ROWS,
    *startup.ROWS,
    *http.ROWS,
    *kept.ROWS,
    *cpu.ROWS,
    *ascend.ROWS,
    *config.ROWS,
    *residual.ROWS,
)
