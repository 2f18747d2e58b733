"""What was decided about data and models: the log, and what follows from it. Knows no image."""

#: Part of the keys of all steps that use this package, in place of its code.
FORMAT = 1
