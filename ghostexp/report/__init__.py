"""Tables, statistics and figures of finished runs beside the published numbers. No torch: a report opens at once."""
