"""Names, records and locks of run and sweep directories. No torch here, so that reports start at once."""
