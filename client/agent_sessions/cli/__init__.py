"""sessionctl: the sessions of agents from the command line."""
