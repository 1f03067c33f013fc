"""The demo: its world (shapes), its CLIP (mini_clip), and its web page (app.py)."""
