"""python -m flows COMMAND: the command line of flows/cli."""

import gc
import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback while this imports; main() resets

from flows.cli.app import main

if __name__ == "__main__":
    exit_code = main()
    gc.freeze()  # or Python looks through all of torch once more on its way out, for a second
    sys.exit(exit_code)
