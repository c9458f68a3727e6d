"""Every picture's style, and the pictures of ratios."""
