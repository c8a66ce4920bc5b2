"""What Dormouse puts into an engine image: the guard, and a stand-in engine for tests."""

__version__ = "0.1.0"
