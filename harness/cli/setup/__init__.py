"""What surrounds the commands: defaults from files and the environment, groups of options, versions, completion."""
