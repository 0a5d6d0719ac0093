"""The versions of a package between which a seed begins or ceases to fail."""
