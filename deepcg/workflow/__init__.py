"""The jobs: one config and one function each. The command line and the notebooks call these."""
