"""HTML pages of a run: reports, component cards, the site, the notebook view. No torch."""
