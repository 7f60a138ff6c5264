"""Foundations that know no feature: stores, logs, metrics, faults."""
