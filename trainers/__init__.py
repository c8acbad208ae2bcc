"""Trainers: one runnable module for each compressor."""
