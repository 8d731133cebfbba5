"""The command line: each command is a config, whose fields are its options, and a function.

=============== ==================================================================================
file            what is in it
=============== ==================================================================================
main            the list of commands with their examples; each is imported when it is asked for
commands        options from the fields of a config; help, TOML files, errors in one line
completion      what a shell completes, read from the source without importing PyTorch
progress_bars   bars on a terminal, lines elsewhere
signals         Ctrl-C and SIGTERM end a task where it can go on from
=============== ==================================================================================

It imports `deepcg.runtime`, and of `deepcg.workflow` only what was asked for, by name: ``deepcg
--help`` takes a tenth of a second of processor time.
"""
