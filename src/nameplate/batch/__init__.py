"""Many photos: predictions into tables, restartable; the competition's submission."""
