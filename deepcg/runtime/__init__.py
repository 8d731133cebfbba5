"""What any program needs: errors, progress, files that are whole or absent, locks, configs.

=============== ==================================================================================
file            what is in it
=============== ==================================================================================
errors          `InputError`, one clear line for the user; look-up in registries with the nearest
                right name
arrays          types of NumPy arrays in signatures
config          configs as flat tables: TOML files, settings from docstrings, old names of settings
files           writing such that a power cut leaves the old file or the new one; reading that
                refuses what is damaged and never runs what it reads
locks           one process at a time in a folder
progress        how far a long task is, told to whoever shows it
provenance      hashes, versions, and the refusal to go on under other settings
warnings_of_libraries
                kept off the terminal where a library is called
=============== ==================================================================================

It imports nothing of deepcg but the version, and knows neither physics nor networks.
"""
