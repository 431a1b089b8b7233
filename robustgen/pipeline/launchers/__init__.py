"""Places where the stages of a run are executed: a file for each, and a line in `robustgen.cli.run`."""
