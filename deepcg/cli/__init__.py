"""The command line: commands from config dataclasses, progress bars, signals."""
