"""Pure decisions: no I/O, no clock, no logging. Time and measurements come in as arguments.

states      the engine's state machine, as tables
snapshot    the frozen picture that every decision reads
depth       how deep it may sleep: what spec and engine both allow
lifecycle   what one engine should be: a list of rules, first match wins
ledger      the books of device memory: does it fit, and what would a sleep give back
arbiter     one plan for all engines that share devices
plan        what a decision returns: jobs made of steps, verdicts, when to look again
summary     what a user reads: conditions and status, from the same snapshot and plan
"""
