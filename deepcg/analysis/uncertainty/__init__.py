"""Where an ensemble knows U: model deviation, calibration, figures, report."""
