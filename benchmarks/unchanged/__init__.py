"""Programs of other packages, which ``programs.py`` measures with and without ``install()``."""
