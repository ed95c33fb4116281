"""ResNet Explorer's library: build, count, train and explain residual nets and their plain twins."""

__version__ = "0.1.0"
