"""What people see of a run: progress, log, report page and UI artifacts. Knows no dataset."""

#: Part of the keys of all steps that use this package, in place of its code.
FORMAT = 1
