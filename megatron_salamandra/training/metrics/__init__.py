"""Metrics: recorded by name wherever they are measured, written by every sink."""
