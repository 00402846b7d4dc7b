"""What happens around every call, from the outside in: see `pipeline`."""
