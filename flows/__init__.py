"""The flows, one file a flow, and the command line: `./run COMMAND`."""
