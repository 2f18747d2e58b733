"""Evaluation: metrics, predictions on disk, and figures."""
