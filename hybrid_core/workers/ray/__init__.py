"""A worker on another computer, by way of the user's own Ray cluster."""
