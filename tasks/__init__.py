"""The steps, one Prefect task a file: read artifacts, call classifier/, write an artifact."""
