"""Free-energy surfaces (potentials of mean force) of one or two collective variables.

=================== ================================================================
file                what it is
=================== ================================================================
``surface``         F on a grid with replicates, from which all errors follow
``estimates``       F from frames: counted, or counted and pushed by forces
``mbar_weights``    frames of several biased runs on one scale
``joined``          which basins are joined by data
``member_errors``   what data and training add to the error of a model's samples
``ramachandran``    named regions of the (phi, psi) plane
``comparison``      populations, barriers, distances
``surface_metrics`` distances of the literature between surfaces without frames
``maps``            figures of one energy
``figures``         figures of several side by side
``report``          ``report.html`` and ``fes.json``
``fitted``          U of a fit bin by bin, beside what the data say
``fitted_figures``  its figures
=================== ================================================================
"""
