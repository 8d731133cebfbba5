"""What any program needs: errors, progress, files that are whole or absent, locks, configs."""
