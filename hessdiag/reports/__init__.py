"""Pure functions from a :class:`hessdiag.results.Report` to text: one module per format, each with ``render``."""
