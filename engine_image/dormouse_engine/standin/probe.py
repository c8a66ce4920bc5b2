"""What the guard measures of a stand-in: the simulated device's books."""
