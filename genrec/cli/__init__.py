"""Define the command line. Each module contains one group of commands."""
