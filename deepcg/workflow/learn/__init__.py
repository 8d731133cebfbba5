"""``deepcg learn``: active learning where an ensemble disagrees."""
