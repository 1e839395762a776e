"""A run's course: what each evaluation is to be, and what stands in for what is not evaluated."""
