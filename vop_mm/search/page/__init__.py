"""Web page for search. Requires gradio, which is not imported anywhere else."""
