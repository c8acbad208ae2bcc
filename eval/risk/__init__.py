"""Thresholds and budgets with a bound on what they lose: conformal risk control and learn-then-test."""
