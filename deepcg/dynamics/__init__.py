"""Langevin runs of U that resume: steps, enhanced sampling, model deviation."""
