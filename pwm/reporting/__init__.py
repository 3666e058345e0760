"""Pages, plots, model cards and bundles of finished runs."""
