"""Image files to pixels: one, or many in processes of their own. What starts here loads NumPy and Pillow, no more."""
