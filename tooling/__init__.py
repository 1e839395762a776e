"""What dev.py does besides reading its arguments: the set-up, the checks and the tests."""
