"""One evaluation after the other: what each device does of it, and what comes of it."""
