"""Evaluation of detectors: one table of scores, one protocol."""
