"""`python -m training report`: what runs showed, as one HTML file that needs nothing else."""
