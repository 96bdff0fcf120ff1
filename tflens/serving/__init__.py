"""SavedModels with named signatures that run without this package, and a small server for them."""
