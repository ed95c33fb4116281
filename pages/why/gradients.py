"""Gradients: how large the loss's gradient is along the depth of a net and of its plain twin."""

from pages.ui import analysis, gradients

analysis.page({"gradients": gradients.draw})
