"""The errors of both foundations, which know nothing of each other, and of the steps."""

import artifacts.errors
import classifier.errors

#: One or two sentences for the user: exit code 1.
INPUT_ERRORS = (artifacts.errors.InputError, classifier.errors.InputError)
#: The same about an argument: exit code 2.
ARGUMENT_ERRORS = (artifacts.errors.ArgumentError, classifier.errors.ArgumentError)


class BrokenData(classifier.errors.InputError):
    """New data that must not be trained on before a person has looked at it."""
