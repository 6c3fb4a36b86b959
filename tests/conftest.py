"""Properties are drawn from fixed seeds, so that a run can be repeated; no example is timed."""

from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")
