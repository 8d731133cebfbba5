"""U = priors + network as a callable with forces; stacks, ensembles and model files."""
