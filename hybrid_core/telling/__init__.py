"""What a run did: its report, its messages to the page, its curve."""
