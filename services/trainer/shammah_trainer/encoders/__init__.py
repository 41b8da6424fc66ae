"""Training and export of the two judges, router and validator. The only place that knows their networks."""
