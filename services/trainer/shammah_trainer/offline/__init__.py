"""A round of training from files, without bus and services: for studies, and for a GPU that stands elsewhere."""
