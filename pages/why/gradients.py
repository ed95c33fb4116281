"""Gradients: how large the loss's gradient is along the depth of a net and of its plain twin."""

from pages.ui import analysis, norms

analysis.page({"gradients": norms.draw})
