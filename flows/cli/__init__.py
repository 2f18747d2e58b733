"""The command line: what it takes and prints, and which Prefect server a run reports to."""
