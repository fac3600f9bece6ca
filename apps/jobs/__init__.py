"""Jobs from file to file: no parsing, no printing."""
