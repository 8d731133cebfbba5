"""Free-energy surfaces: estimates, comparison, figures, report."""
