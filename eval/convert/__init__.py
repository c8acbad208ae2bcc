"""Question files made from the published data sets: one converter a set, checked, the same bytes on every run."""
