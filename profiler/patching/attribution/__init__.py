"""Attribution patching: gradient estimates of patching effects, and how reliable they are."""
