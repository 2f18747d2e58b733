"""The flows: what is done in which order. Run one by `python -m flows <command>`."""
