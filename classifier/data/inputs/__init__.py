"""Labelled images as people have them: told by content, read in pieces, checked row by row.

Four forms: Parquet in the table's schema, Parquet of encoded pictures (Hugging Face), pairs of IDX
files, and a folder a class. `plan` cuts paths into jobs, `read` makes a chunk of one job, and
`read_all` reads the jobs side by side. A row that cannot be used is refused with a reason and the
others go through; an input that cannot be used raises InputError. Nothing is stored, and each
module reads a form by itself: pictures never load pyarrow, and nothing here loads torch.
"""

from classifier.data.inputs.erasing import erase
from classifier.data.inputs.planning import plan
from classifier.data.inputs.processes import read, read_all
from classifier.data.inputs.rows import Chunk, Job, Refused, Subject

__all__ = ["Chunk", "Job", "Refused", "Subject", "erase", "plan", "read", "read_all"]
