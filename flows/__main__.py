"""The command line: python -m flows <command> [options].

Exit codes: 0 done, 1 the run failed, 2 bad arguments, 130 interrupted.
"""

import gc
import os
import sys
from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import Annotated, Any

from classifier.errors import BadInput

#: Settings for a run from a terminal. What the environment already says stays.
SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",  # races the first migration: a traceback
    "DO_NOT_TRACK": "1",  # the client's, whose notice would stand between our lines
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # 20 is too short on a slow machine
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # flows/terminal.py shows our own lines
}

COMMANDS = {
    "train": "flows.train:train",
    "preflight": "flows.preflight:preflight",
    "cache": "flows.cache:app",
}
#: Of each flow the function of flows/terminal.py that prints its result.
SHOWN = {"train": "summary", "preflight": "fitness"}

INTERRUPTED = "Interrupted. What was finished is kept; the same command goes on from there.\n"


def main(tokens: Sequence[str] | None = None) -> int:
    """Run the command that the tokens ask for; its exit code."""
    arguments = list(sys.argv[1:] if tokens is None else tokens)
    for name, value in SETTINGS.items():
        if not (name.endswith("CONSOLE_LEVEL") and "--debug" in arguments):
            os.environ.setdefault(name, value)
    try:
        return _launch(arguments)
    except KeyboardInterrupt:  # also while Prefect is being imported
        sys.stderr.write(INTERRUPTED)
        return 130


def _launch(arguments: list[str]) -> int:
    from flows import terminal

    try:
        return _app().meta(arguments, exit_on_error=False, print_error=False) or 0
    except Exception as error:  # noqa: BLE001 - the outermost line: one sentence, and the log
        return terminal.failed(error, debug="--debug" in arguments)


def _app() -> Any:
    """The commands, each loaded only when it is asked for: a flow's parameters are its options."""
    from cyclopts import App, Parameter

    app = App(
        name="python -m flows",
        help="Scheduled retraining of an image classifier.",
        version_flags=(),
        result_action="return_value",
    )
    for name, place in COMMANDS.items():
        app.command(place, name=name)
    app.meta.group_parameters = "Session"
    app.meta.suppress_keyboard_interrupt = False  # main() has more to say than it would

    @app.meta.default
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        data: Path | None = None,
        source: Path | None = None,
        json: Annotated[bool, Parameter(negative="")] = False,
        debug: Annotated[bool, Parameter(negative="")] = False,  # noqa: ARG001 - main() looks for it
    ) -> int:
        """Run a command.

        Args:
            tokens: the command and its options
            data: Folder for all that is made  [default: MNIST_DATA, or data/ here]
            source: Folder with the data files, instead of the public sources
            json: Print the result as one JSON object, and nothing else on standard output
            debug: Print all logs, and a traceback when the run fails
        """
        for name, folder in (("MNIST_DATA", data), ("MNIST_SOURCE", source)):
            if folder is not None:
                os.environ[name] = str(folder.resolve())
        command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
        if getattr(command, "name", None) in SHOWN:
            return _run(command, bound.arguments, as_json=json)
        answer = command(*bound.args, **bound.kwargs)
        if answer is None:  # --help
            return 0
        sys.stdout.write((dumps(answer.found) if json else answer.text) + "\n")
        return int(answer.code)

    return app


def _run(flow: Any, arguments: dict[str, Any], *, as_json: bool) -> int:
    from flows import server, terminal

    show = getattr(terminal, SHOWN[flow.name])
    with server.chosen() as address, terminal.lines():
        if address:
            terminal.say(f"Runs on the Prefect server at {address}")

        def tell(result: dict[str, Any]) -> None:
            if as_json:
                sys.stdout.write(dumps(result) + "\n")
            else:
                show(result, ui=address is not None)

        try:
            tell(flow(**arguments))
        except BadInput as error:
            if error.found:
                tell(error.found)
            raise
    return 0


if __name__ == "__main__":
    exit_code = main()
    gc.freeze()  # or Python looks through all of torch once more on its way out, for a second
    sys.exit(exit_code)
