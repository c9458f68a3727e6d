"""`chatvec live`: a merge that answers at any ratio, to programs and on a page."""
