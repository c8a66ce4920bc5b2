"""The resource as Python types: names, durations, spec, status, conditions. Imports nothing else of ours."""
