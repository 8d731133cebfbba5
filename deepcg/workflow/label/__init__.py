"""``deepcg label``: forces of frames, and mean forces of restrained dynamics."""
