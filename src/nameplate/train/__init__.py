"""Training: data in, a bundle out. Only modules that say so import torch."""
