"""The endpoints: photos, corrections, status, and the Open Inference Protocol."""
