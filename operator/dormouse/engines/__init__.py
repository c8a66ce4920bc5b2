"""Everything said to an engine, and everything it says: one client, two dialects, event streams."""
