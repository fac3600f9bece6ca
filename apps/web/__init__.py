"""The browser's side: scripts, style sheets and markup in one folder for each page, and what reads them."""
