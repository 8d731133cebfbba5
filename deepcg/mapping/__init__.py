"""From atoms to beads or collective variables."""
