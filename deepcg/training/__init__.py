"""Force matching: loss, trainer, noise floor, members of an ensemble."""
