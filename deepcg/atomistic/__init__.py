"""All-atom simulations by OpenMM: water, alanine dipeptide, restraints; forces without bias."""
