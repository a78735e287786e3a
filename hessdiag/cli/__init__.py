"""The terminal program: parse, call one function, print, exit."""
