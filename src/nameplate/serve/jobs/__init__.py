"""Jobs: many photos in one request, answered in the background while interactive requests go first."""
