"""Training methods as torch optimizers around a base optimizer, each with a closure."""
