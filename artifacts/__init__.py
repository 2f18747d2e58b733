"""Content-addressed artifacts for Prefect tasks: what a step made, and why it ran again or did not.

`step.py` turns a function into a cached Prefect task; its result is an `Artifact`, one immutable
folder named by the SHA-256 of its content. Nothing here knows what the artifacts are about.
Only `step.py` and `policy.py` import Prefect.
"""

#: Part of every key. Raise it when a change in this package makes older records unfit.
FORMAT = 3
