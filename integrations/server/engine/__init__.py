"""The work behind the routes: models, a fair queue, jobs and caches."""
