"""The steps: they read artifacts, call classifier/, and write artifacts."""
