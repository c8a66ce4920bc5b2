"""How hard to look: seconds in the suite, `--hypothesis-profile=hunt` for minutes when a rule was changed."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "suite", max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("hunt", settings.get_profile("suite"), max_examples=3000)
settings.load_profile("suite")
