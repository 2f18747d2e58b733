"""The commands and their exit codes: 0 done, 1 failed, 2 bad arguments, 130 interrupted."""

import os
import signal
import sys
from collections.abc import Sequence
from inspect import signature
from json import dumps
from pathlib import Path
from typing import Annotated, Any

#: Settings for a run from a terminal. What the environment says already stays.
SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",  # races the first migration: a traceback
    "DO_NOT_TRACK": "1",  # the client's, whose notice would stand between our lines
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # 20 is too short on a slow machine
    "PREFECT_CLIENT_MAX_RETRIES": "8",  # a server that is away for eight minutes ends no run
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # terminal.py shows the project's lines
    "PREFECT_LOGGING_EXTRA_LOGGERS": "artifacts,classifier,registry",  # their warnings reach the UI
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # so does none from before a run
}

#: Place and help of each command; a command is imported when it is asked for.
COMMANDS = {
    "train": ("flows.train:train", "Train a classifier, from its data to a report."),
    "sweep": ("flows.sweep:sweep", "Train with several recipes and seeds, and say which is best."),
    "retrain": ("flows.retrain:retrain", "Train on what is new; replace the champion if better."),
    "ingest": ("flows.ingest:ingest", "Take in new labelled images, and look at them."),
    "predict": ("flows.cli.predict:predict", "Say what the champion sees in pictures."),
    "preflight": ("flows.preflight:preflight", "Check that this machine is fit to train."),
    "deploy": ("flows.cli.deploy:deploy", "Put deployments and automations on a Prefect server."),
    "health": ("flows.cli.health:health", "Say whether retraining goes on, as cron may ask."),
    "recipes": ("flows.cli.catalog:recipes", "List the recipes with their values."),
    "datasets": ("flows.cli.catalog:datasets", "List the datasets with what they declare."),
}
#: Of each flow the function of terminal.py that prints its result.
SHOWN = {
    "train": "print_summary",
    "sweep": "print_sweep",
    "retrain": "print_retrain",
    "ingest": "print_ingest",
    "preflight": "print_preflight",
}

DATA = "List the batches of new data; retract, correct and erase."
MODELS = "List, show and compare models; promote, roll back, block and freeze."
STORE = "Back up what cannot be made again, restore it, and migrate it."
INTERRUPTED = "Interrupted. Finished steps are kept; the same command resumes from there.\n"


def main(tokens: Sequence[str] | None = None) -> int:
    """Run the command that the tokens ask for, and return its exit code."""
    arguments = list(sys.argv[1:] if tokens is None else tokens)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    for name, value in SETTINGS.items():
        if not (name.endswith("CONSOLE_LEVEL") and "--debug" in arguments):
            os.environ.setdefault(name, value)
    try:
        return _launch(arguments)
    except KeyboardInterrupt:  # also while Prefect is being imported
        sys.stderr.write(INTERRUPTED)
        # CPython kills itself at exit when Ctrl-C met code that is run from a string, as the
        # making of a dataclass is, even when the interrupt was caught; running any resets that.
        exec("")  # noqa: S102
        return 130
    finally:
        _flush()


def _flush() -> None:
    """Write what is still to be written; whoever read it may have left, as `head` does."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _launch(arguments: list[str]) -> int:
    from flows.cli import terminal

    try:
        return _app().meta(arguments, exit_on_error=False, print_error=False) or 0
    except BrokenPipeError:
        return 0
    except Exception as error:  # noqa: BLE001 - the outermost line: one sentence, and the log
        return terminal.print_error(error, debug="--debug" in arguments)


def _app() -> Any:
    """Build the commands; a flow's parameters are its options."""
    from cyclopts import App, Parameter

    from artifacts.text import printable
    from flows.cli import cache, terminal
    from flows.cli.paths import Named

    app = App(
        name="run",
        usage="Usage: ./run COMMAND [OPTIONS]",
        help="Scheduled retraining of an image classifier.",
        version_flags=(),
        result_action="return_value",
        default_parameter=Parameter(negative=""),
    )
    for name, (place, text) in COMMANDS.items():
        app.command(place, name=name, help=text, usage=f"Usage: ./run {name} [OPTIONS]")
    app.command("flows.cli.data:app", name="data", help=DATA)
    app.command("flows.cli.models:app", name="models", help=MODELS)
    app.command("flows.cli.store:app", name="store", help=STORE)
    app.command("flows.cli.gate:app", name="gate", help="Show what the gate can still find.")
    app.command(cache.app)
    app.register_install_completion_command(help="Install completion for this shell.")
    session = Parameter(group="Session", show_default=False)
    app.meta.suppress_keyboard_interrupt = False  # main() has more to say than it would

    @app.meta.default
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        data: Annotated[Named | None, session] = None,
        source: Annotated[Named | None, session] = None,
        json: Annotated[bool, session] = False,
        debug: Annotated[bool, session] = False,  # noqa: ARG001 - main() looks for it
    ) -> int:
        """Run a command.

        Args:
            tokens: the command and its options
            data: Folder for all results  [default: RETRAIN_DATA, or data/ here]
            source: Folder with the data files, instead of the public sources
            json: Print the result as one JSON value, and nothing else, on standard output
            debug: Print all logs, and a traceback when the run fails
        """
        for name, folder in (("RETRAIN_DATA", data), ("RETRAIN_SOURCE", source)):
            if folder is not None:
                os.environ[name] = str(folder.resolve())
        command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
        if getattr(command, "name", None) in SHOWN:
            return _run_flow(command, bound.arguments, as_json=json)
        answer = command(*bound.args, **bound.kwargs)
        if answer is None:  # --help
            return 0
        for warning in answer.warnings:
            terminal.say(warning)
        sys.stdout.write((dumps(answer.found) if json else printable(answer.text)) + "\n")
        return int(answer.code)

    return app


def _say_what_would_run(forecast: dict[str, Any], *, as_json: bool) -> int:
    wide = max(15, *map(len, forecast["steps"]))
    lines = [
        f"{step:<{wide}} would run   {forecast['why'][step]}"
        if outcome == "run"
        else f"{step:<{wide}} {outcome}"
        for step, outcome in forecast["steps"].items()
    ]
    sys.stdout.write((dumps(forecast) if as_json else "\n".join(lines)) + "\n")
    return 0


def _check(flow: Any, arguments: dict[str, Any]) -> None:
    """Check the options before there is a run: a slip of the keyboard is no failed one."""
    _check_text(arguments)
    options = signature(flow.fn).bind(**arguments)
    options.apply_defaults()
    sys.modules[flow.fn.__module__].check(**flow.validate_parameters(options.arguments))


def _check_text(arguments: dict[str, Any]) -> None:
    """Check that what a run is given can be sent to a server.

    Raises:
        ArgumentError: a name of a file is no UTF-8.
    """
    from artifacts.errors import ArgumentError

    for value in arguments.values():
        for text in value if isinstance(value, list) else [value]:
            try:
                str(text).encode()
            except UnicodeEncodeError:
                raise ArgumentError(
                    f"The name {text!a} is no UTF-8: give the file or folder another one."
                ) from None


def _run_flow(flow: Any, arguments: dict[str, Any], *, as_json: bool) -> int:
    from prefect import tags

    from flows.cli import server, terminal
    from flows.cli.automations import TAG
    from reporting.log import listening
    from tasks.errors import INPUT_ERRORS

    if arguments.get("dry_run"):  # needs no server
        return _say_what_would_run(flow.fn(**arguments), as_json=as_json)
    _check(flow, arguments)
    show = getattr(terminal, SHOWN[flow.name])
    # By the tag automations.yaml knows the project's runs.
    with server.choose() as address, listening(terminal.ProjectLogHandler()), tags(TAG):
        if address:
            terminal.say(f"Using the Prefect server at {address}")

        def tell(result: dict[str, Any]) -> None:
            if as_json:
                sys.stdout.write(dumps(result) + "\n")
            else:
                show(result, ui=address is not None)

        try:
            tell(flow(**arguments))
        except INPUT_ERRORS as error:
            if found := getattr(error, "found", None):
                tell(found)
            raise
    return 0
