"""Charts as PNG pictures: the only place that uses matplotlib, and only when it draws."""
