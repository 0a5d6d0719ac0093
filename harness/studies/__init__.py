"""Many campaigns, compared: the matrix of designs, two substrates, planted faults, measurements."""
