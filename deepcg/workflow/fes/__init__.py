"""``deepcg fes``: free-energy surfaces side by side."""
