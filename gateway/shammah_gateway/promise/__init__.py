"""Is the promise still kept: audits, drift, and what follows from them."""
