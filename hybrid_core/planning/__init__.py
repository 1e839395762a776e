"""How the work of a step is best divided over devices: numbers in, a division out."""
