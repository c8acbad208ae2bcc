"""Settings for every test file: property tests have no deadline, since a busy machine is no bug."""

from hypothesis import settings

settings.register_profile("ctxprune", deadline=None)
settings.load_profile("ctxprune")

# fixtures that several files use, and what CTXPRUNE_ALL_TESTS does
pytest_plugins = ["fixtures_cli", "fixtures_endpoint", "fixtures_towns", "plugin_no_skips"]
