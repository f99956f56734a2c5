"""Audit a data set: copies, leaks, wrong labels, outliers, damaged files, and shortcuts in the background."""
