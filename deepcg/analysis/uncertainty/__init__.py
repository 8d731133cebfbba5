"""Where an ensemble knows U: its model deviation, and whether that is the size of its error.

================== ================================================================
file               what it is
================== ================================================================
``spread``         the model deviation Sigma over surfaces and beads
``data_error``     the error of U that noise and number of frames leave, in each bin
``response``       how averages over samples follow from one member to another
``calibration``    Sigma against true errors
``figures``        figures of both
``report``         ``report.html`` and ``variance.json``
================== ================================================================
"""
