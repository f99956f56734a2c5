"""Reports: plots as PNG, pages as one self-contained HTML file."""
